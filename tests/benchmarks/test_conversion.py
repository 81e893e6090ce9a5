"""A model as large as GLiNER-large is converted in less memory than a laptop has."""

import pytest

import nerlet
from conversion import make_large_checkpoint, measure

pytestmark = pytest.mark.slow  # five minutes of two cores and 2 GB of disk for each

MOST_GB = 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    make_large_checkpoint(folder)
    return folder


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_large_model_is_converted_within_8_gb(checkpoint, tmp_path, precision):
    figures = measure(checkpoint, tmp_path / "bundle", ["--precision", precision])
    assert figures["peak_gb"] < MOST_GB
    names = {path.name for path in (tmp_path / "bundle").iterdir()}
    assert ("weights.bin" in names) is (precision == "fp32")
    model = nerlet.load(tmp_path / "bundle")
    text = "Bill Gates founded Microsoft on April 4, 1975."
    assert model.predict_entities(text, ["person", "date"], threshold=0.0)

import re

import pytest

from nerlet.bundle import open_bundle
from nerlet.errors import BundleError
from nerlet.manifest import NO_MARKER
from tests.toys import write_export


@pytest.mark.parametrize(
    ("config", "found", "instead"),
    [
        ({"labels_decoder": "x/y"}, "a model that generates labels", "name the labels yourself"),
        ({"precomputed_prompts_mode": True}, "a model with its labels built in", "the checkpoint"),
        ({"model_type": "gliner_streaming_span"}, "a streaming model", "run it in GLiNER itself"),
        ({"model_type": "gliner9"}, "an unknown model_type 'gliner9'", "install a newer nerlet"),
        ({"model_type": ["gliner"]}, "an unknown model_type ['gliner']", "run it in GLiNER itself"),
    ],
)
def test_what_this_version_does_not_read_is_refused_with_what_does(
    tmp_path, config, found, instead
):
    with pytest.raises(BundleError) as raised:
        open_bundle(write_export(tmp_path / "toy", config=config))
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'toy' / 'gliner_config.json'}: expected ")
    assert re.search(rf"a span model, .*, found {re.escape(found)}.*; .*{instead}", message)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"labels_decoder": "x/y", "labels_encoder": "x/y"}, "a model that generates labels"),
    ],
)
def test_the_first_key_decides_as_in_the_reference(tmp_path, config, found):
    with pytest.raises(BundleError, match=f"found {found}"):
        open_bundle(write_export(tmp_path / "toy", config=config))


@pytest.mark.parametrize("model_type", [None, "gliner", "gliner_uni_encoder_span"])
@pytest.mark.parametrize(
    ("span_mode", "architecture"), [(None, "span"), ("markerV0", "span"), ("token_level", "token")]
)
def test_models_of_spans_and_of_tokens_are_read(tmp_path, model_type, span_mode, architecture):
    config = {"model_type": model_type, "span_mode": span_mode, "labels_encoder": None}
    assert open_bundle(write_export(tmp_path / "toy", config=config)).architecture == architecture


@pytest.mark.parametrize("model_type", [None, "gliner_bi_encoder_span"])
@pytest.mark.parametrize(("span_mode", "architecture"), [(None, "bi"), ("token_level", "bi_token")])
def test_bi_encoders_of_spans_and_of_tokens_are_read(tmp_path, model_type, span_mode, architecture):
    config = {"model_type": model_type, "span_mode": span_mode, "labels_encoder": "x/y"}
    bundle = open_bundle(write_export(tmp_path / "toy", config=config))
    assert bundle.architecture == architecture
    assert bundle.labels is not None
    assert bundle.labels.width == 512
    assert bundle.ent == bundle.sep == NO_MARKER

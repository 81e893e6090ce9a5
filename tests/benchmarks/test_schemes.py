"""Smoothing changes no logit and helps int8; the table of schemes marks the best of each level."""

import json

import numpy as np
import pytest
import torch

from nerlet.examples import Dataset, Example
from nerlet_export.graph import build_graph
from nerlet_export.onnx_graph import join_weights
from nerlet_export.samples import sample_feeds
from nerlet_export.tiny import make_checkpoint
from quantization import write
from schemes import open_session, read_activations, smooth

TEXTS = ["ada wrote to babbage", "apple founded in april", "berlin", "a b c d e f g h i j k l"]
LOUD = 60.0


@pytest.fixture(scope="module")
def checkpoint():
    """A toy model in which one channel of every norm is loud, as in real encoders."""
    checkpoint = make_checkpoint("bert")
    with torch.no_grad():
        for module in checkpoint.model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight[3] *= LOUD
    return checkpoint


@pytest.fixture(scope="module")
def texts():
    examples = tuple(Example(tuple(text.split()), frozenset(), ("a", "b")) for text in TEXTS)
    return [Dataset("toy", ("a", "b"), examples)]


def test_smoothing_changes_no_logit_and_halves_what_is_loud(checkpoint, texts):
    exact = join_weights(build_graph(checkpoint))
    activations = read_activations(exact, checkpoint, texts)
    smoothed, divided = smooth(exact, activations)
    changed = [name for name, values in activations.items() if values is not divided[name]]
    assert len(changed) >= 2  # a layer has two products that read a norm
    again = read_activations(smoothed, checkpoint, texts)
    for name in changed:
        np.testing.assert_allclose(again[name], divided[name], rtol=1e-3, atol=1e-4)
        assert np.abs(divided[name]).max() < np.abs(activations[name]).max() / 2
    feeds = sample_feeds(checkpoint, seed=1)

    runs = [
        open_session(own.SerializeToString()).run(["logits"], feeds)[0] for own in (exact, smoothed)
    ]
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-3, atol=1e-4)


def test_the_table_marks_what_no_other_beats_and_says_what_was_not_measured(tmp_path):
    places = {
        "exact": (1.0, 100.0),
        "good": (0.5, 97.0),
        "beaten": (0.5, 90.0),
        "fast": (0.4, 90.0),
    }
    rows = [
        {"level": level, "scheme": name, "megabytes": 1.0, "to_fp32_64": t, "agreement": agreement}
        for level in ("avx2", "native")
        for name, (t, agreement) in places.items()
    ]
    rows[-1]["agreement"] = 98.0  # natively, "fast" beats "good", too
    write(rows, tmp_path)
    table = (tmp_path / "quantization.md").read_text(encoding="utf-8")
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert lines == [
        "| exact | 1.0 | **1.00, 100.0** | **1.00, 100.0** |",
        "| good | 1.0 | **0.50, 97.0** | 0.50, 97.0 |",
        "| beaten | 1.0 | 0.50, 90.0 | 0.50, 90.0 |",
        "| fast | 1.0 | **0.40, 90.0** | **0.40, 98.0** |",
    ]
    document = json.loads((tmp_path / "quantization.json").read_text(encoding="utf-8"))
    assert document["results"] == rows
    assert document["not_measured"] == ["avx_vnni", "avx512f", "avx512_vnni", "Arm"]

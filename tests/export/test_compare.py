"""The gate on labelled data: gold is what PyTorch finds, so its own F1 is 100."""

import json

import pytest
import torch

from nerlet.errors import GraphError
from nerlet_export.checkpoint import save_checkpoint
from nerlet_export.convert import convert
from nerlet_export.predict import TorchPredictor
from nerlet_export.samples import draw_sample
from nerlet_export.tiny import make_checkpoint

LABELS = ["person", "date", "law", "medical condition"]


@pytest.fixture
def labelled(tmp_path):
    """A checkpoint and a file labelled by it."""
    torch.set_num_threads(1)
    checkpoint = make_checkpoint("bert")
    save_checkpoint(tmp_path / "checkpoint", checkpoint)
    sentences = [
        text.split() for seed in range(10) for text in draw_sample(checkpoint, seed=seed).texts
    ]
    found = TorchPredictor(checkpoint, threshold=0.5)(sentences, LABELS)
    rows = [
        {"tokenized_text": words, "ner": [[s.start, s.end - 1, LABELS[s.label]] for s in spans]}
        for words, spans in zip(sentences, found, strict=True)
    ]
    lines = [{"labels": LABELS}, *rows]
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return tmp_path


def test_a_float_bundle_passes_and_records_what_it_reached(labelled, monkeypatch):
    monkeypatch.setenv("NERLET_DATA", str(labelled))
    manifest = convert(
        labelled / "checkpoint", labelled / "bundle", precision="fp32", dev="dev.jsonl"
    )
    report = manifest.verification["data"]
    assert isinstance(report, dict)
    assert report["torch_f1"] == report["bundle_f1"] == 100.0
    assert report["entity_agreement"] == 1.0
    assert report["entities"] > 50
    assert report["max_score_drift"] < 1e-4


def test_a_bundle_that_loses_too_much_is_not_written(labelled):
    with pytest.raises(GraphError, match="points lost, nothing is written"):
        convert(labelled / "checkpoint", labelled / "bundle", dev=labelled / "dev.jsonl")
    assert not (labelled / "bundle").exists()

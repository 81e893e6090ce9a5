"""The gate on labelled data: gold is what PyTorch finds, so its own F1 is 100."""

import json
import logging
from typing import Any

import pytest
import torch

from nerlet.errors import GraphError
from nerlet.evaluate import Counts
from nerlet.manifest import Manifest, read_manifest
from nerlet_export import compare
from nerlet_export.checkpoint import save_checkpoint
from nerlet_export.cli import main
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


def figures(manifest: Manifest) -> list[dict[str, Any]]:
    reports = manifest.verification["data"]
    assert isinstance(reports, list)
    return reports


def test_a_float_bundle_passes_and_records_what_it_reached(labelled, monkeypatch):
    monkeypatch.setenv("NERLET_DATA", str(labelled))
    manifest = convert(
        labelled / "checkpoint", labelled / "bundle", precision="fp32", dev=["dev.jsonl"]
    )
    (report,) = figures(manifest)
    assert report["torch_f1"] == report["bundle_f1"] == 100.0
    assert report["entity_agreement"] == 1.0
    assert report["entities"] > 50
    assert report["max_score_drift"] < 1e-4


def test_a_bundle_that_loses_too_much_is_not_written(labelled):
    with pytest.raises(
        GraphError, match="points lost, nothing is written; convert with --precision fp32"
    ):
        convert(labelled / "checkpoint", labelled / "bundle", dev=[labelled / "dev.jsonl"])
    assert not (labelled / "bundle").exists()


def test_a_float_bundle_is_never_told_to_be_float(labelled, monkeypatch):
    monkeypatch.setattr(compare, "MAX_F1_LOSS", -1.0)
    with pytest.raises(GraphError, match="please report it"):
        convert(
            labelled / "checkpoint",
            labelled / "bundle",
            precision="fp32",
            dev=[labelled / "dev.jsonl"],
        )


def test_the_command_holds_on_every_folder_that_it_is_given(labelled, caplog):
    """On data without one right entity nothing can be lost, which is said."""
    rows = [{"tokenized_text": ["so", "it", "is"], "ner": [[0, 2, "law"]]}] * 2
    lines = [{"labels": ["law"]}, *rows]
    (labelled / "empty.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    bundle = labelled / "bundle"
    command = ["convert", str(labelled / "checkpoint"), str(bundle), "--precision", "fp32"]
    data = [str(labelled / name) for name in ("dev.jsonl", "empty.jsonl")]
    with caplog.at_level(logging.WARNING):
        assert main([*command, "--threshold", "0.999", "--dev", data[0], "--dev", data[1]]) == 0
    both = figures(read_manifest(bundle))
    assert [report["data"] for report in both] == ["dev.jsonl", "empty.jsonl"]
    assert both[1]["torch_f1"] == 0.0
    assert "PyTorch's own average F1 is 0 at threshold 0.999" in caplog.text


def test_agreement_where_nothing_is_found():
    assert compare.agreement(Counts()) == 1.0
    assert compare.agreement(Counts(correct=0, found=1, annotated=0)) == 0.0
    assert compare.agreement(Counts(correct=1, found=1, annotated=3)) == 0.5

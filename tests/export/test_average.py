"""The average of checkpoints: every weight the mean, the card of the last with all steps."""

import json

import pytest
import torch

from nerlet.errors import BundleError, InputError
from nerlet_export.average import average_checkpoints
from nerlet_export.checkpoint import load_checkpoint, save_checkpoint, write_card
from nerlet_export.tiny import make_checkpoint


@pytest.fixture
def two(tmp_path):
    for seed in (1, 2):
        save_checkpoint(tmp_path / str(seed), make_checkpoint("bert", seed=seed))
        write_card(tmp_path / str(seed), {"steps": 100 * seed, "threshold": 0.3})
    return [tmp_path / "1", tmp_path / "2"]


def test_every_weight_is_the_mean(two, tmp_path):
    average_checkpoints(two, tmp_path / "mean")
    one, other, mean = (
        load_checkpoint(folder).model.state_dict() for folder in (*two, tmp_path / "mean")
    )
    for name, weight in mean.items():
        torch.testing.assert_close(weight, (one[name] + other[name]) / 2)
    card = json.loads((tmp_path / "mean" / "training.json").read_text())
    assert card == {"steps": 200, "threshold": 0.3, "averaged_steps": [100, 200]}


def test_dev_chooses_the_threshold(two, tmp_path):
    row = {"tokenized_text": ["Ann", "is", "in", "Rome"], "ner": [[0, 0, "person"]]}
    dev = tmp_path / "dev.jsonl"
    dev.write_text(json.dumps({"labels": ["person"]}) + "\n" + json.dumps(row))
    average_checkpoints(two, tmp_path / "mean", dev=dev)
    card = json.loads((tmp_path / "mean" / "training.json").read_text())
    assert 0.1 <= card["threshold"] <= 0.9
    assert list(card["dev"]) == ["dev"]


def test_another_architecture_is_refused(two, tmp_path):
    save_checkpoint(tmp_path / "wide", make_checkpoint("bert", max_width=6))
    with pytest.raises(BundleError, match="differs from that of"):
        average_checkpoints([two[0], tmp_path / "wide"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_one_checkpoint_is_no_average(two, tmp_path):
    with pytest.raises(InputError, match="two or more"):
        average_checkpoints(two[:1], tmp_path / "mean")

"""Trained here with a head of the reference's, exported here: read by `gliner` and by fast_gliner.

The model is one that a run of training has taught names and cities.
"""

import random
from pathlib import Path
from typing import Any

import pytest
import transformers

import nerlet
from nerlet_export import tiny
from nerlet_export import train as training
from nerlet_export.checkpoint import save_checkpoint
from nerlet_export.convert import convert
from nerlet_export.settings import Data, Optimization, Settings
from tests.export.parity import find_difference
from tests.export.reference_models import load_reference, load_reference_on_onnx
from tests.export.test_train import CITIES, NAMES, write_rows

LABELS = ["person", "city"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that a run left, and its bundle beside it."""
    folder = tmp_path_factory.mktemp("trained")
    words = [*NAMES, *CITIES, "so", "is", "in"]
    # fast_gliner writes 1 and 2 at a text's ends, which are DeBERTa's ids, whatever the tokenizer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "PAD_ID", 0)
        patch.setattr(tiny, "_SPECIALS", ("[PAD]", "[CLS]", "[SEP]", "[UNK]"))
        start = tiny.make_checkpoint(
            "bert", words=words, dropout=0.1, max_width=12, span_mode="markerV0"
        )
    save_checkpoint(folder / "start", start)
    data = write_rows(folder / "train.jsonl")
    (folder / "dev").mkdir()
    write_rows(folder / "dev" / "toy.jsonl", 8)
    run = training.train(
        Settings(
            directory=folder / "run",
            start=str(folder / "start"),
            data=Data(train=str(data), dev=str(folder / "dev")),
            optimization=Optimization(
                steps=600, batch_pieces=60, encoder_lr=3e-3, head_lr=1e-2, warm_up=0.1
            ),
            device="cpu",
        )
    )
    assert run is not None
    assert run.f1_at_half > 0.8
    convert(folder / "run" / "last", folder / "bundle", precision="fp32")
    return folder


def draw_texts() -> list[str]:
    """Sentences of the words that the model knows."""
    rng = random.Random(0)
    return [
        " ".join([*["so"] * rng.randint(0, 3), rng.choice(NAMES), "is", "in", rng.choice(CITIES)])
        for _ in range(40)
    ]


def count_same(ours: list[Any], theirs: list[Any]) -> int:
    """How many entities both have, where all are the same."""
    for own, other in zip(ours, theirs, strict=True):
        assert find_difference(own, other) == ""
    return sum(map(len, theirs))


def test_a_trained_checkpoint_answers_in_gliner(trained):
    reference = load_reference(trained / "run" / "last")
    ours = nerlet.load(trained / "bundle", threads=1).inference(draw_texts(), LABELS, threshold=0.5)
    assert count_same(ours, reference.inference(draw_texts(), LABELS, threshold=0.5)) > 50


def test_its_bundle_answers_in_gliner(trained):
    reference = load_reference_on_onnx(trained / "bundle")
    ours = nerlet.load(trained / "bundle", threads=1).inference(draw_texts(), LABELS, threshold=0.5)
    assert count_same(ours, reference.inference(draw_texts(), LABELS, threshold=0.5)) > 50


@pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) >= 5,
    reason="fast_gliner wants a huggingface_hub that transformers 5 does not take",
)
def test_its_bundle_answers_in_fast_gliner(trained):
    """Which has the same keys in another order."""
    from fast_gliner import FastGLiNER

    fast = FastGLiNER(str(trained / "bundle"), "model.onnx", "cpu")
    ours = nerlet.load(trained / "bundle", threads=1).inference(draw_texts(), LABELS, threshold=0.5)
    theirs = [
        [{key: entity[key] for key in ("start", "end", "text", "label", "score")} for entity in own]
        for own in fast.predict_entities(draw_texts(), LABELS)
    ]
    assert count_same(ours, theirs) > 50

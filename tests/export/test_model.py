"""The two forms of the model agree, and the folded head is equation 1."""

from typing import Any

import numpy as np
import pytest
import torch

from nerlet.words import split_words, word_shape
from nerlet_export.checkpoint import Checkpoint
from nerlet_export.data import Example, make_batch
from nerlet_export.encoder import label_blocks
from nerlet_export.heads import HEADS
from nerlet_export.predict import prompt_layout
from nerlet_export.samples import Sample, draw_sample, make_prompt
from nerlet_export.span_heads import PaperSpanHead
from nerlet_export.tiny import ENCODERS, make_checkpoint
from nerlet_export.verify import known_cells, run_torch

REFERENCE_HEAD: dict[str, Any] = {"span_mode": "markerV0", "num_rnn_layers": 1, "hidden_size": 12}
ISOLATED: dict[str, Any] = {
    "label_attention": "isolated",
    "label_pooling": "mean",
    "word_shapes": True,
}
VARIANTS = [
    *((encoder, {}) for encoder in ENCODERS),
    *((encoder, REFERENCE_HEAD) for encoder in ENCODERS),
    *(("bert", {"span_mode": mode, "num_rnn_layers": 1}) for mode in HEADS),
    ("bert", ISOLATED),
    ("bert", {"label_attention": "isolated"}),
    ("bert", {"label_pooling": "mean", "word_shapes": True}),
]


def packed_logits(checkpoint: Checkpoint, sample: Sample) -> np.ndarray:
    """The logits of a sample through the training form, (B, L * K, C)."""
    pieces = checkpoint.pieces
    examples = []
    label_pieces: dict[str, tuple[int, ...]] = {}
    for text, labels in zip(sample.texts, sample.labels, strict=True):
        words = [word.text for word in split_words(text)]
        examples.append(
            Example(pieces.encode_units(words), [word_shape(word) for word in words], labels)
        )
        label_pieces.update(zip(labels, pieces.encode_units(labels), strict=True))
    batch = make_batch(examples, label_pieces, prompt_layout(checkpoint))
    with torch.inference_mode():
        return checkpoint.span_model.score_batch(batch).numpy()


@pytest.mark.parametrize(("encoder", "settings"), VARIANTS)
def test_packed_form_equals_padded_form(encoder, settings):
    checkpoint = make_checkpoint(encoder, **settings)
    sample = draw_sample(checkpoint, seed=3, size=5)
    padded = run_torch(checkpoint, sample.feeds)
    packed = packed_logits(checkpoint, sample).reshape(padded.shape)
    known = known_cells(sample)
    assert known.sum() > 1000
    assert np.abs(padded)[known].max() > 1.0
    np.testing.assert_allclose(packed[known], padded[known], atol=1e-4)


def test_folded_head_is_equation_1():
    """Logit of span (i, j) and label t: FFN([h_i; h_j]) . q_t, plus the constant."""
    heads = make_checkpoint("bert").span_model.heads
    span = heads.span
    assert isinstance(span, PaperSpanHead)
    words, labels = torch.randn(1, 5, 16), torch.randn(1, 3, 16)
    starts, ends = span.endpoints(words, torch.tensor([5]))
    directions, offsets = heads.fold_labels(labels)
    found = span.project(starts[:, [1, 2]], ends[:, [3, 2]], directions) + offsets[:, None]
    spans = torch.cat([words[:, [1, 2]], words[:, [3, 2]]], dim=-1)
    expected = span.out_project(spans) @ heads.label(labels).transpose(1, 2)
    torch.testing.assert_close(found, expected + span.logit_bias, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, ISOLATED])
def test_a_text_alone_scores_as_in_a_padded_batch(settings):
    checkpoint = make_checkpoint("bert", **settings)
    sample = draw_sample(checkpoint, seed=8, size=4)
    together = run_torch(checkpoint, sample.feeds)
    for row, (text, labels) in enumerate(zip(sample.texts, sample.labels, strict=True)):
        prompt = make_prompt(checkpoint, text, labels)
        alone = draw_alone(checkpoint, prompt)
        _, L, _, C = alone.shape
        inside = np.arange(L)[:, None] + np.arange(checkpoint.model.config.max_width) < L
        np.testing.assert_allclose(alone[0][inside], together[row, :L, :, :C][inside], atol=1e-4)


def draw_alone(checkpoint, prompt):
    from nerlet.batch import make_batch as make_tensors

    config = checkpoint.model.config
    return run_torch(
        checkpoint, make_tensors([prompt], config.max_width, word_shapes=config.word_shapes)
    )


def test_isolated_labels_do_not_depend_on_their_order():
    checkpoint = make_checkpoint("bert", **ISOLATED)
    text, labels = "ab cd EF Gh", ["person", "date of birth", "law", "x"]
    there = draw_alone(checkpoint, make_prompt(checkpoint, text, labels))
    back = draw_alone(checkpoint, make_prompt(checkpoint, text, labels[::-1]))
    known = np.arange(4)[:, None] + np.arange(4) < 4
    np.testing.assert_allclose(there[0][known], back[0][known][..., ::-1], atol=1e-5)


def test_joint_labels_see_each_other():
    """The test above can fail: with joint attention the order does change scores."""
    checkpoint = make_checkpoint("bert")
    text, labels = "ab cd EF Gh", ["person", "date of birth", "law", "x"]
    there = draw_alone(checkpoint, make_prompt(checkpoint, text, labels))
    back = draw_alone(checkpoint, make_prompt(checkpoint, text, labels[::-1]))
    assert np.abs(there - back[..., ::-1]).max() > 1e-2


def test_word_shapes_change_scores_and_start_without_effect():
    checkpoint = make_checkpoint("bert", **ISOLATED)
    lower = draw_alone(checkpoint, make_prompt(checkpoint, "ab cd", ["person"]))
    upper = draw_alone(checkpoint, make_prompt(checkpoint, "AB CD", ["person"]))
    sample = draw_sample(checkpoint, seed=1, size=1).feeds
    shapeless = {**sample, "word_shapes": np.zeros((1, 1), dtype=np.int64)}
    assert np.abs(lower - upper).max() > 1e-2
    assert np.abs(run_torch(checkpoint, sample) - run_torch(checkpoint, shapeless)).max() > 1e-2


def test_label_blocks_number_each_label_and_leave_the_text_at_0():
    ent, sep = 50, 51
    ids = torch.tensor([[1, ent, 7, 8, ent, 9, sep, 10, 11, 2]])
    assert label_blocks(ids, ent).tolist() == [[0, 1, 1, 1, 2, 2, 0, 0, 0, 0]]

"""Batches: where pieces, spans and targets land."""

import numpy as np
import pytest

from nerlet_export.data import Example, Layout, make_batch

LABELS = {"a": [20], "b c": [21, 22], "d": [23]}


def layout(*, is_isolated: bool, is_mean: bool = False) -> Layout:
    return Layout(
        prefix=(1,),
        suffix=(2,),
        ent_id=90,
        sep_id=91,
        max_width=2,
        max_positions=None,
        is_isolated=is_isolated,
        is_mean=is_mean,
        has_shapes=True,
    )


EXAMPLES = [
    Example([[10, 11], [12]], [2, 1], ["a", "b c"], positives=[(0, 1, 1)]),
    Example([[13], [14], [15]], [1, 1, 6], ["d", "a"], positives=[(1, 0, 0), (2, 0, 1)]),
]


def test_joint_layout_is_prefix_labels_separator_words_suffix():
    batch = make_batch(EXAMPLES, LABELS, layout(is_isolated=False))
    assert batch.pieces.ids.tolist() == [
        *(1, 90, 20, 90, 21, 22, 91, 10, 11, 12, 2),
        *(1, 90, 23, 90, 20, 91, 13, 14, 15, 2),
    ]
    assert batch.pieces.positions.tolist() == [*range(11), *range(10)]
    assert batch.words.tolist() == [[7, 9, 0], [17, 18, 19]]


def test_isolated_layout_has_each_distinct_label_once():
    batch = make_batch(EXAMPLES, LABELS, layout(is_isolated=True, is_mean=True))
    assert batch.pieces.ids.tolist() == [
        *(90, 20, 90, 21, 22, 90, 23),
        *(1, 91, 10, 11, 12, 2),
        *(1, 91, 13, 14, 15, 2),
    ]
    assert batch.pieces.positions.tolist() == [0, 1, 0, 1, 2, 0, 1, *range(6), *range(6)]
    assert batch.labels.tolist() == [[0, 1], [2, 0]]
    _, texts = batch.pieces.attention
    first = texts.keys[0][texts.is_key[0]].tolist()
    assert first == [*range(7, 13), 0, 1, 2, 3, 4]  # its own pieces, then labels a and b c
    np.testing.assert_allclose(batch.label_weights.sum(1).numpy(), 1.0)


def test_segments_are_word_shapes_and_the_label_segment():
    batch = make_batch(EXAMPLES[:1], LABELS, layout(is_isolated=True))
    assert batch.pieces.segments.tolist() == [7, 7, 7, 7, 7, 0, 0, 2, 2, 1, 0]


def test_targets_are_at_start_width_label():
    batch = make_batch(EXAMPLES, LABELS, layout(is_isolated=False))
    spans = [
        (row, int(batch.starts[row, span]), int(batch.ends[row, span]), label)
        for row, span, label in np.argwhere(batch.targets.numpy() > 0)
    ]
    assert spans == [(0, 0, 1, 1), (1, 1, 1, 0), (1, 2, 2, 1)]


def test_cells_outside_the_text_or_of_padding_labels_carry_no_loss():
    batch = make_batch(EXAMPLES, LABELS, layout(is_isolated=False))
    assert batch.weights.shape == (2, 6, 2)
    assert batch.weights[0].sum(1).tolist() == [2, 2, 2, 0, 0, 0]  # 2 words: (0,0) (0,1) (1,1)
    assert batch.weights[1].sum(1).tolist() == [2, 2, 2, 2, 2, 0]


def test_only_known_spans_carry_loss_where_one_mention_is_labelled():
    example = Example([[10], [11]], [1, 1], ["a", "d"], [(0, 0, 0)], known_spans=[(0, 0)])
    batch = make_batch([example], LABELS, layout(is_isolated=False))
    assert batch.weights[0].tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]


def test_unsure_cells_carry_no_loss_but_entities_always_do():
    example = Example([[10]], [1], ["a", "d"], [(0, 0, 0)], unsure=[(0, 0, 0), (0, 0, 1)])
    batch = make_batch([example], LABELS, layout(is_isolated=False))
    assert batch.weights[0].tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("is_isolated", [True, False])
def test_every_piece_answers_exactly_once(is_isolated):
    batch = make_batch(EXAMPLES, LABELS, layout(is_isolated=is_isolated))
    answered = np.concatenate(
        [group.queries.flatten()[group.answers].numpy() for group in batch.pieces.attention]
    )
    assert answered.tolist() == list(range(len(batch.pieces.ids)))

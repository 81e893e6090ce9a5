import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerlet.batch import bucket_length, make_batch
from nerlet.prompt import Prompt


def make_prompt(lengths: list[int]) -> Prompt:
    """A prompt with words of these numbers of pieces, behind two pieces and before one."""
    starts = 2 + np.cumsum([0, *lengths[:-1]])
    size = 3 + sum(lengths)
    shapes = np.zeros(size, dtype=np.int64)
    shapes[2:-1] = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    words = np.arange(len(lengths))
    return Prompt(np.arange(size) + 100, starts.astype(np.int64), words, shapes, 1, 0)


def test_tensors_of_two_ragged_prompts():
    batch = make_batch([make_prompt([1, 2]), make_prompt([1])], 2, word_shapes=True)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[100, 101, 102, 103, 104, 105], [100, 101, 102, 103, 0, 0]],
        "attention_mask": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]],
        "words_mask": [[0, 0, 1, 2, 0, 0], [0, 0, 1, 0, 0, 0]],
        "text_lengths": [[2], [1]],
        "span_idx": [[[0, 0], [0, 1], [1, 1], [1, 2]], [[0, 0], [0, 1], [0, 0], [0, 0]]],
        "span_mask": [[True, True, True, False], [True, False, False, False]],
        "word_shapes": [[0, 0, 1, 2, 2, 0], [0, 0, 1, 0, 0, 0]],
    }


def test_word_shapes_only_where_asked_for():
    assert "word_shapes" not in make_batch([make_prompt([1])], 2)


@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(1, 4),
)
def test_shapes_types_and_independence_of_the_batch(lengths, max_width):
    prompts = [make_prompt(own) for own in lengths]
    batch = make_batch(prompts, max_width)
    words, pieces = max(map(len, lengths)), max(len(prompt.ids) for prompt in prompts)
    count = len(prompts)
    assert {name: (tensor.shape, tensor.dtype.name) for name, tensor in batch.items()} == {
        "input_ids": ((count, pieces), "int64"),
        "attention_mask": ((count, pieces), "int64"),
        "words_mask": ((count, pieces), "int64"),
        "text_lengths": ((count, 1), "int64"),
        "span_idx": ((count, words * max_width, 2), "int64"),
        "span_mask": ((count, words * max_width), "bool"),
    }
    for row, prompt in enumerate(prompts):
        for name, alone in make_batch([prompt], max_width).items():
            own = batch[name][row]
            assert own[: alone.shape[1]].tolist() == alone[0].tolist()
            assert not own[alone.shape[1] :].any()


def test_a_length_only_adds_padding():
    prompts = [make_prompt([1, 2]), make_prompt([1])]
    batch, longer = (make_batch(prompts, 2, word_shapes=True, length=length) for length in (0, 9))
    by_piece = {"input_ids", "attention_mask", "words_mask", "word_shapes"}
    for name, tensor in batch.items():
        if name in by_piece:
            assert longer[name].shape == (2, 9)
            assert not longer[name][:, 6:].any()
        assert longer[name][:, : tensor.shape[1]].tolist() == tensor.tolist()
        assert name in by_piece or longer[name].shape == tensor.shape


@pytest.mark.parametrize(
    ("pieces", "limit", "length"),
    [(4, None, 32), (32, None, 32), (33, None, 64), (33, 64, 64), (33, 63, 33), (70, 60, 70)],
)
def test_lengths_are_multiples_within_the_limit(pieces, limit, length):
    prompts = [make_prompt([pieces - 3]), make_prompt([1])]
    assert bucket_length(prompts, limit) == length

"""The reference's own decoder as the oracle: same spans, order, ties, scores, class_probs."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from nerlet.decode import select_spans
from nerlet.scores import class_scores, find_candidates
from tests.strategies import TIED_LOGITS

B, K, C = 60, 4, 3
NAMES = ["person", "place", "date"]


@pytest.fixture(scope="module")
def decode():
    """gliner's decoding of a batch of logits (B, L, K, C) of which `words` are real."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from gliner.decoding.decoder import SpanDecoder

    decoder = SpanDecoder(SimpleNamespace())

    def run(logits, words, **options):
        names = dict(enumerate(NAMES, start=1))
        tokens = [["word"] * count for count in words]
        return decoder.decode(tokens, names, torch.from_numpy(logits), **options)

    return run


def draw_logits(seed: int, *, tied: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 12, B)
    shape = (B, max(words), K, C)
    logits = rng.choice(TIED_LOGITS, shape) if tied else rng.normal(0, 3, shape)
    return logits.astype(np.float32), words


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_same_as_the_reference(decode, tied, nested, multi_label, threshold):
    compared = 0
    for seed in range(3):
        logits, words = draw_logits(seed, tied=tied)
        options = {"flat_ner": not nested, "multi_label": multi_label, "threshold": threshold}
        theirs = decode(logits, words, **options)
        for one, count, expected in zip(logits, words, theirs, strict=True):
            candidates = find_candidates(one[:count], threshold=threshold)
            ours = select_spans(candidates, nested=nested, multi_label=multi_label)
            got = [(s.start, s.end, NAMES[s.label]) for s in ours]
            assert got == [(s.start, s.end + 1, s.entity_type) for s in expected]
            assert [s.score for s in ours] == pytest.approx([s.score for s in expected], abs=1e-6)
            compared += 1
    assert compared == 3 * B


def test_class_scores_are_the_reference_class_probs(decode):
    logits, words = draw_logits(7, tied=False)
    theirs = decode(logits, words, flat_ner=True, threshold=0.5, return_class_probs=True)
    compared = 0
    for one, expected in zip(logits, theirs, strict=True):
        for span in expected:
            ours = class_scores(one[span.start, span.end - span.start], NAMES)
            assert list(ours) == list(span.class_probs)
            assert ours == pytest.approx(span.class_probs, abs=1e-6)
            compared += 1
    assert compared > 100

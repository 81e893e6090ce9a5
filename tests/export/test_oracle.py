"""The whole export against the reference: its checkpoint, our bundle, the same entities.

Checkpoints are made and saved by `gliner`, converted by `nerlet_export`, and three models answer
the same calls: the reference in PyTorch (the oracle), `nerlet` on the bundle, and the reference
itself on the bundle's graph.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nerlet
from nerlet_export.convert import convert
from tests.export.parity import (
    WHOLE,
    WORDS,
    Outcome,
    draw_call,
    entity_key,
    find_difference,
    is_noise,
)
from tests.export.reference_models import (
    MAX_LEN,
    load_reference,
    load_reference_on_onnx,
    make_reference,
)

CALLS = 18  # per model; each of 6 to 11 texts
LEAST_COMPARISONS = 500
MOST_EXCLUDED = 0.01

# Encoder, projection, LSTM, file of the weights.
MODELS = {
    f"{encoder}{'-projected' * projected}{'-lstm' * rnn}": (encoder, projected, rnn)
    for encoder in ("bert", "deberta-v2")
    for projected in (False, True)
    for rnn in (False, True)
}


@dataclass(frozen=True, slots=True)
class Trio:
    """One model three times: the oracle, the bundle, and the reference on the bundle's graph."""

    oracle: Any
    ours: nerlet.GLiNER
    mixed: Any


@pytest.fixture(scope="module")
def trios(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trio]:
    """Make, save, convert and load each model once."""
    made: dict[str, Trio] = {}

    def get(name: str) -> Trio:
        if name not in made:
            made[name] = make_trio(tmp_path_factory.mktemp(name), name)
        return made[name]

    return get


def make_trio(folder: Path, name: str) -> Trio:
    encoder, is_projected, has_rnn = MODELS[name]
    model = make_reference(
        folder / "encoder",
        encoder=encoder,
        is_projected=is_projected,
        has_rnn=has_rnn,
        seed=sum(map(ord, name)),
        words=WHOLE,
    )
    is_safe = list(MODELS).index(name) % 3 != 0  # else a pickle, pytorch_model.bin
    model.save_pretrained(folder / "checkpoint", safe_serialization=is_safe)
    convert(folder / "checkpoint", folder / "bundle", precision="fp32")
    return Trio(
        load_reference(folder / "checkpoint"),
        nerlet.load(folder / "bundle", threads=1),
        load_reference_on_onnx(folder / "bundle"),
    )


@pytest.fixture(scope="module")
def outcomes(trios: Callable[[str], Trio]) -> Callable[[str], tuple[Outcome, Outcome]]:
    """Compare each model once: ours with the oracle, the reference on our graph with it."""
    done: dict[str, tuple[Outcome, Outcome]] = {}

    def get(name: str) -> tuple[Outcome, Outcome]:
        if name not in done:
            done[name] = compare(trios(name), seed=sum(map(ord, name)))
        return done[name]

    return get


def compare(trio: Trio, seed: int) -> tuple[Outcome, Outcome]:
    rng = random.Random(seed)
    outcomes = Outcome(), Outcome()
    for number in range(CALLS):
        call = draw_call(rng, number)
        oracle = trio.oracle.inference(call.texts, **call.arguments)
        for model, outcome in zip((trio.ours, trio.mixed), outcomes, strict=True):
            outcome.add_call(call, model.inference(call.texts, **call.arguments), oracle)
    return outcomes


@pytest.mark.parametrize("name", MODELS)
def test_same_entities_offsets_order_and_scores(outcomes, name):
    ours, _ = outcomes(name)
    assert not ours.differences, f"{len(ours.differences)}: {ours.differences[0]}"
    assert ours.entities > 5 * CALLS


@pytest.mark.parametrize("name", MODELS)
def test_the_reference_runs_our_graph_with_the_same_results(outcomes, name):
    _, mixed = outcomes(name)
    assert not mixed.differences, f"{len(mixed.differences)}: {mixed.differences[0]}"
    assert mixed.entities > 5 * CALLS


def test_enough_was_compared_and_little_left_out(outcomes):
    for side in (0, 1):
        found = [outcomes(name)[side] for name in MODELS]
        compared = sum(outcome.compared for outcome in found)
        excluded = sum(outcome.excluded for outcome in found)
        assert compared >= LEAST_COMPARISONS
        assert excluded <= MOST_EXCLUDED * (compared + excluded)


@pytest.mark.parametrize("name", ["bert-lstm", "deberta-v2-projected"])
def test_one_text_as_in_the_paper(trios, name):
    trio = trios(name)
    text, labels = "Bill Gates founded Microsoft on April 4, 1975.", ["person", "organization"]
    oracle = trio.oracle.predict_entities(text, labels, threshold=0.3)
    outcome = Outcome()
    outcome.add(text, 0.3, trio.ours.predict_entities(text, labels, threshold=0.3), oracle)
    assert outcome.entities > 0
    assert not outcome.differences


@pytest.mark.filterwarnings(f"ignore:Sentence of length 180 has been truncated to {MAX_LEN}")
def test_a_long_text_is_cut_where_the_reference_cuts_it(trios):
    trio = trios("bert")
    text = "Bill Gates " * 90  # 180 words
    oracle = trio.oracle.predict_entities(text, ["person"], threshold=0.2)
    with pytest.warns(UserWarning, match=f"{180 - MAX_LEN} words at the end of 1 texts were cut"):
        ours = trio.ours.predict_entities(text, ["person"], threshold=0.2)
    assert find_difference(ours, oracle) == ""


_UNREADABLE = ("\u200b", "\u200d", "\ufeff", "\u200f", "\x01")  # BERT's tokenizer drops these


def test_words_without_pieces_do_not_shift_spans_as_in_the_reference(trios):
    """On purpose unlike the reference, whose later spans are off by one for every such word.

    The expected result is the reference's on the same text with a space for each of them, which
    keeps all offsets; only the slice of a span around one of them differs.
    """
    trio, rng = trios("bert-projected"), random.Random(5)
    shifted = 0
    for _ in range(60):
        words = [rng.choice((*WORDS, *_UNREADABLE)) for _ in range(rng.randint(1, 12))]
        text = rng.choice([" ", ""]).join(words)
        readable = "".join(" " if char in _UNREADABLE else char for char in text)
        expected = trio.oracle.predict_entities(readable, ["person", "date"], threshold=0.3)
        ours = trio.ours.predict_entities(text, ["person", "date"], threshold=0.3)
        assert all(entity["text"] == text[entity["start"] : entity["end"]] for entity in ours)
        ours = [{**own, "text": readable[own["start"] : own["end"]]} for own in ours]
        assert find_difference(ours, expected) == ""
        if text != readable and readable.strip():
            theirs = trio.oracle.predict_entities(text, ["person", "date"], threshold=0.3)
            shifted += list(map(entity_key, theirs)) != list(map(entity_key, ours))
    assert shifted > 10


_BEST = {"start": 0, "end": 4, "label": "a", "score": 0.8}


@pytest.mark.parametrize(
    ("ours", "oracle", "expected"),
    [
        ([], [_BEST], False),
        ([], [{**_BEST, "score": 0.50005}], True),
        ([{**_BEST, "end": 6}], [_BEST], True),
        ([{**_BEST, "end": 6, "score": 0.7}], [_BEST], False),
        ([{**_BEST, "start": 5, "end": 6}], [_BEST], False),
        ([_BEST, {**_BEST, "end": 6}], [{**_BEST, "end": 6}, _BEST], True),
        (
            [_BEST, {**_BEST, "end": 6, "score": 0.7}],
            [{**_BEST, "end": 6, "score": 0.7}, _BEST],
            False,
        ),
        ([{**_BEST, "score": 0.79}], [_BEST], False),
    ],
)
def test_only_noise_is_left_out(ours, oracle, expected):
    assert is_noise(0.5, ours, oracle) is expected

"""The whole export against the reference: its checkpoint, our bundle, the same entities.

Checkpoints are made and saved by `gliner`, converted by `nerlet_export`, and three models answer
the same calls: the reference in PyTorch (the oracle), `nerlet` on the bundle, and the reference
itself on the bundle's graph.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nerlet
from nerlet.words import split_words
from nerlet_export.convert import convert
from tests.export.reference_models import (
    MAX_LEN,
    load_reference,
    load_reference_on_onnx,
    make_reference,
)

TOLERANCE = 1e-4  # of a score
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
_WORDS = (
    *("Bill", "Gates", "Microsoft", "founded", "the", "of", "in", "Paris", "April", "4", "1975"),
    *("e-mail", "a_b", "don't", "3.5%", "(x)", "$40", "https://example.org/docs?v=2", "C++", "..."),
    *("naïve", "Ünïcode", "ß", "Мария", "Варшава", "Ελλάδα", "İstanbul", "e\u0301te\u0301"),
    *("東京大学", "北京", "カタカナ", "한국어", "ก็", "हिन्दी", "שלום", "مرحبا", "ﬁne"),
    *("🚀", "🇫🇷", "👍🏽", "❤", "\U0001d518\U0001d52b", "½", "\uff21\uff42", "x" * 30),
)
_GAPS = (" ", " ", " ", " ", "  ", ", ", "\n", ". ", "\t", "\u2003", "\u00a0", "-", "…", " | ")
_LABELS = (
    *("person", "organization", "date", "chemical compound", "amount of money, in euros", "orgs"),
    *("Person", "人物", "тип", "🚀", "x-y_z", "the"),
)


def draw_text(rng: random.Random) -> str:
    """A text of 1 to about 130 words, seldom long."""
    count = rng.choice([1, 2, 3, rng.randint(4, 12), rng.randint(13, 40), rng.randint(41, 130)])
    text = rng.choice(_WORDS)
    while len(split_words(text)) < count:
        text += rng.choice(_GAPS) + rng.choice(_WORDS)
    return text


def draw_labels(rng: random.Random) -> list[str]:
    """Labels, some twice."""
    return rng.choices(_LABELS, k=rng.randint(1, 7))


def draw_descriptions(rng: random.Random) -> dict[str, str]:
    """Labels with what the model reads in their place."""
    names = dict.fromkeys(draw_labels(rng))
    return {name: f"{name}: such as {place}" for place, name in enumerate(names)}


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of one call of `inference`."""

    texts: list[str]
    arguments: dict[str, Any]

    @property
    def thresholds(self) -> list[float]:
        """The threshold of each text."""
        given = self.arguments["threshold"]
        return given if isinstance(given, list) else [given] * len(self.texts)


def draw_call(rng: random.Random, number: int) -> Call:
    """Draw the texts and arguments of a call; `number` chooses the form of the labels."""
    texts = [draw_text(rng) for _ in range(rng.randint(6, 11))]
    count = len(texts)
    labels: list[Callable[[], Any]] = [
        lambda: draw_labels(rng),
        lambda: draw_descriptions(rng),
        lambda: [draw_labels(rng) for _ in texts],
        lambda: [draw_descriptions(rng) for _ in texts],
        lambda: rng.choice(_LABELS),
        lambda: [rng.choice([draw_labels, draw_descriptions])(rng) for _ in texts],
    ]
    flags, thresholds = (True, False), (0.05, 0.2, 0.4, 0.5, 0.6, 0.8, 0.95)
    if rng.random() < 0.3:  # one value per text: the reference takes these for one batch only
        options = {
            "flat_ner": rng.choices(flags, k=count),
            "multi_label": rng.choices(flags, k=count),
            "threshold": rng.choices(thresholds, k=count),
            "batch_size": count,
        }
    else:
        options = {
            "flat_ner": rng.choice(flags),
            "multi_label": rng.choice(flags),
            "threshold": rng.choice(thresholds),
            "batch_size": rng.randint(1, 8),
        }
        for blank in rng.choices(["", " \n"], k=rng.randint(0, 2)):
            texts[rng.randrange(count)] = blank
    return Call(texts, {"labels": labels[number % len(labels)](), **options})


Key = tuple[int, int, str]
Entities = Sequence[Mapping[str, Any]]


@dataclass
class Outcome:
    """What comparing one model found; one comparison is one text of one call.

    Attributes:
        compared: Texts compared; blank ones are, but do not count.
        excluded: Texts left out because noise of floats decides them.
        entities: Entities that the oracle found.
        differences: What differs and should not.
    """

    compared: int = 0
    excluded: int = 0
    entities: int = 0
    differences: list[str] = field(default_factory=list)

    def add(self, text: str, threshold: float, ours: Entities, oracle: Entities) -> None:
        """Compare the entities of one text."""
        problem = find_difference(ours, oracle)
        if problem and is_noise(threshold, ours, oracle):
            self.excluded += 1
            return
        self.compared += bool(text.strip())
        self.entities += len(oracle)
        if problem:
            self.differences.append(f"{text!r}, threshold {threshold}: {problem}")


def find_difference(ours: Entities, oracle: Entities) -> str:
    """What differs in keys, offsets, texts, labels, order or scores; empty if nothing."""
    if [_key(own) for own in ours] != [_key(other) for other in oracle]:
        return f"{[_key(own) for own in ours]} != {[_key(other) for other in oracle]}"
    for own, other in zip(ours, oracle, strict=True):
        if list(own) != list(other) or own["text"] != other["text"]:
            return f"{own} != {other}"
        if not abs(own["score"] - other["score"]) <= TOLERANCE:
            return f"score {own['score']} != {other['score']}"
    return ""


def is_noise(threshold: float, ours: Entities, oracle: Entities) -> bool:
    """Whether scores within the tolerance of each other, or of the threshold, make the difference.

    Decoding takes the best first. So the best entity that only one side has was refused by the
    other for one of two reasons: it is not above the threshold there, or an overlapping one went
    first, which then has about the same score.
    """
    sides = [{_key(entity): entity["score"] for entity in side} for side in (ours, oracle)]
    only = [{key: side[key] for key in side.keys() - other.keys()} for side, other in _both(sides)]
    if any(only):
        scores = only[0] | only[1]
        best = max(scores, key=lambda key: scores[key])
        rivals = only[1] if best in only[0] else only[0]
        is_tied = any(
            best[0] < key[1] and key[0] < best[1] and scores[best] - score <= TOLERANCE
            for key, score in rivals.items()
        )
        return is_tied or scores[best] - threshold <= TOLERANCE
    moved = [
        (a, b) for a, b in zip(map(_key, ours), map(_key, oracle), strict=True) if a != b
    ]  # same entities in another order: only best-first order among those of one start may differ
    return bool(moved) and all(
        a[0] == b[0] and abs(sides[0][a] - sides[0][b]) <= TOLERANCE for a, b in moved
    )


def _both(sides: list[dict[Key, float]]) -> Iterator[tuple[dict[Key, float], dict[Key, float]]]:
    yield sides[0], sides[1]
    yield sides[1], sides[0]


def _key(entity: Mapping[str, Any]) -> Key:
    return entity["start"], entity["end"], entity["label"]


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
        words=("Bill", "bill", "Micro", "##soft", "fo", "##und", "東", "##京", "🚀", "ма", "the"),
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
            found = model.inference(call.texts, **call.arguments)
            for row in zip(call.texts, call.thresholds, found, oracle, strict=True):
                outcome.add(*row)
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
        words = [rng.choice((*_WORDS, *_UNREADABLE)) for _ in range(rng.randint(1, 12))]
        text = rng.choice([" ", ""]).join(words)
        readable = "".join(" " if char in _UNREADABLE else char for char in text)
        expected = trio.oracle.predict_entities(readable, ["person", "date"], threshold=0.3)
        ours = trio.ours.predict_entities(text, ["person", "date"], threshold=0.3)
        assert all(entity["text"] == text[entity["start"] : entity["end"]] for entity in ours)
        ours = [{**own, "text": readable[own["start"] : own["end"]]} for own in ours]
        assert find_difference(ours, expected) == ""
        if text != readable and readable.strip():
            theirs = trio.oracle.predict_entities(text, ["person", "date"], threshold=0.3)
            shifted += list(map(_key, theirs)) != list(map(_key, ours))
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

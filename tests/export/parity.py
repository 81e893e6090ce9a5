"""Drawn calls of `inference`, and what differs between two models' answers to them.

The oracle is the reference; what it finds is expected up to the noise of floats.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nerlet.words import split_words

TOLERANCE = 1e-4  # of a score
# What a toy's tokenizer knows whole; other words it reads letter by letter.
WHOLE = ("Bill", "bill", "Micro", "##soft", "fo", "##und", "東", "##京", "🚀", "ма", "the")
WORDS = (
    *("Bill", "Gates", "Microsoft", "founded", "the", "of", "in", "Paris", "April", "4", "1975"),
    *("e-mail", "a_b", "don't", "3.5%", "(x)", "$40", "https://example.org/docs?v=2", "C++", "..."),
    *("naïve", "Ünïcode", "ß", "Мария", "Варшава", "Ελλάδα", "İstanbul", "e\u0301te\u0301"),
    *("東京大学", "北京", "カタカナ", "한국어", "ก็", "हिन्दी", "שלום", "مرحبا", "ﬁne"),
    *("🚀", "🇫🇷", "👍🏽", "❤", "\U0001d518\U0001d52b", "½", "\uff21\uff42", "x" * 30),
)
_GAPS = (" ", " ", " ", " ", "  ", ", ", "\n", ". ", "\t", "\u2003", "\u00a0", "-", "…", " | ")
LABELS = (
    *("person", "organization", "date", "chemical compound", "amount of money, in euros", "orgs"),
    *("Person", "人物", "тип", "🚀", "x-y_z", "the"),
)


def draw_text(rng: random.Random) -> str:
    """A text of 1 to about 130 words, seldom long."""
    count = rng.choice([1, 2, 3, rng.randint(4, 12), rng.randint(13, 40), rng.randint(41, 130)])
    text = rng.choice(WORDS)
    while len(split_words(text)) < count:
        text += rng.choice(_GAPS) + rng.choice(WORDS)
    return text


def draw_labels(rng: random.Random) -> list[str]:
    """Labels, some twice."""
    return rng.choices(LABELS, k=rng.randint(1, 7))


def draw_descriptions(rng: random.Random) -> dict[str, str]:
    """Labels with what the model reads in their place."""
    names = dict.fromkeys(draw_labels(rng))
    return {name: f"{name}: such as {place}" for place, name in enumerate(names)}


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of one call of `inference`."""

    texts: list[str]
    arguments: dict[str, Any]

    def singly(self) -> Iterator["Call"]:
        """The call of each text alone."""
        for place, text in enumerate(self.texts):
            own = {
                name: value[place : place + 1] if _is_per_text(value) else value
                for name, value in self.arguments.items()
            }
            yield Call([text], own)

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
        lambda: rng.choice(LABELS),
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


def _is_per_text(value: object) -> bool:
    return isinstance(value, list) and not isinstance(value[0], str)


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

    def add_call(self, call: Call, ours: Sequence[Entities], oracle: Sequence[Entities]) -> None:
        """Compare the entities of a call's texts."""
        for row in zip(call.texts, call.thresholds, ours, oracle, strict=True):
            self.add(*row)

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
    if [entity_key(own) for own in ours] != [entity_key(other) for other in oracle]:
        return f"{[entity_key(own) for own in ours]} != {[entity_key(other) for other in oracle]}"
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
    sides = [{entity_key(entity): entity["score"] for entity in side} for side in (ours, oracle)]
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
        (a, b)
        for a, b in zip(map(entity_key, ours), map(entity_key, oracle), strict=True)
        if a != b
    ]  # same entities in another order: only best-first order among those of one start may differ
    return bool(moved) and all(
        a[0] == b[0] and abs(sides[0][a] - sides[0][b]) <= TOLERANCE for a, b in moved
    )


def _both(sides: list[dict[Key, float]]) -> Iterator[tuple[dict[Key, float], dict[Key, float]]]:
    yield sides[0], sides[1]
    yield sides[1], sides[0]


def entity_key(entity: Mapping[str, Any]) -> Key:
    return entity["start"], entity["end"], entity["label"]

"""What a user passes to the public methods, checked and brought into one form."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nerlet.errors import InputError
from nerlet.manifest import is_count, is_threshold

Labels = (
    str | Sequence[str] | Mapping[str, str] | Sequence[Sequence[str]] | Sequence[Mapping[str, str]]
)
OneThreshold = float | Mapping[str, float] | None
Threshold = OneThreshold | Sequence[OneThreshold]
Flag = bool | Sequence[bool]
GivenSpans = Sequence[Sequence[Mapping[str, Any]]]

# Arguments of the reference that change nothing while they are None or False.
_REFERENCE_ONLY = frozenset({"packing_config", "return_vectors", "return_label_vectors"})


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels of one text: what the result calls them, and what the model reads."""

    names: tuple[str, ...]
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwnThresholds:
    """A model's own thresholds: for what a label is read as, or else for every label."""

    overall: float
    by_prompt: Mapping[str, float]

    def of(self, prompt: str) -> float:
        """The threshold of one label."""
        return self.by_prompt.get(prompt, self.overall)


@dataclass(frozen=True, slots=True)
class Task:
    """What to find in one text.

    Attributes:
        labels: The labels.
        thresholds: Keep scores above these, one for each label.
        nested: Spans may nest.
        multi_label: A span may have several labels.
        given: (start, end) offsets of the only spans that may be found; None: any span.
    """

    labels: LabelSet
    thresholds: tuple[float, ...]
    nested: bool
    multi_label: bool
    given: frozenset[tuple[int, int]] | None


def refuse_unknown(arguments: Mapping[str, object]) -> None:
    """Raise InputError for an argument that is not known, or known to the reference only."""
    for name, value in arguments.items():
        if name not in _REFERENCE_ONLY:
            raise InputError(f"{name}: expected no such argument, found {value!r}; leave it out")
        if value is not None and value is not False:
            raise InputError(
                f"{name}: expected None or False, found {value!r}; "
                "nerlet does not have this part of GLiNER, leave it out"
            )


def read_texts(texts: object) -> list[str]:
    """Return the texts as a list, "" for one that is blank or not a string.

    Args:
        texts: An iterable of texts, or one text.

    Raises:
        InputError: Neither.
    """
    return [read_text(text) for text in iterate_texts([texts] if isinstance(texts, str) else texts)]


def iterate_texts(texts: object) -> Iterator[object]:
    """Return an iterator of what should be texts.

    Raises:
        InputError: Not an iterable, or one text.
    """
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise InputError(
            f"texts: expected a string or a list of strings, found {type(texts).__name__}; "
            "give for example ['first text', 'second text']"
        )
    return iter(texts)


def read_text(text: object) -> str:
    """Return a text, "" for one that is blank or not a string."""
    return text if isinstance(text, str) and text.strip() else ""


def read_sentences(sentences: object) -> list[list[str]]:
    """Return sentences of given words as lists.

    Raises:
        InputError: Not an iterable of iterables of strings.
    """
    if isinstance(sentences, str | bytes | Mapping) or not isinstance(sentences, Iterable):
        raise InputError(
            f"sentences: expected a list of lists of words, found {type(sentences).__name__}; "
            "give for example [['Bill', 'Gates']], or use inference for texts"
        )
    return [_read_words(words, index) for index, words in enumerate(sentences)]


def _read_words(words: object, index: int) -> list[str]:
    if isinstance(words, Iterable) and not isinstance(words, str | bytes):
        listed = list(words)
        if all(isinstance(word, str) for word in listed):
            return listed
    raise InputError(
        f"sentences[{index}]: expected a list of words, found {words!r}; "
        "give for example ['Bill', 'Gates'], or use inference for texts"
    )


def read_tasks(
    count: int,
    labels: object,
    threshold: object,
    own: OwnThresholds,
    multi_label: object,
    input_spans: object = None,
    **overlap: object,
) -> list[Task]:
    """Return what to find in each text.

    Args:
        count: Number of texts.
        labels: One label, a list, a dict {name: description}, or a list with one list or dict
            per text. Duplicates drop, the order stays.
        threshold: A number in [0, 1], a dict {label: number}, None for the model's own, or a list
            of these, one per text. A label that the dict lacks has the model's own; a label of
            the dict that is not asked for is passed over.
        own: The model's own.
        multi_label: True, False, or a list of these, one per text.
        input_spans: None, or for each text a list of dicts with "start" and "end".
        **overlap: Either `nested` or its opposite `flat_ner`, whichever the user gives; values as
            for `multi_label`.

    Raises:
        InputError: A value out of bounds, or a list of another length than `count`.
    """
    ((name, value),) = overlap.items()
    label_sets = _read_labels(labels, count)
    columns = zip(
        label_sets,
        _read_thresholds(threshold, label_sets, own),
        [flag is (name == "nested") for flag in _read_flags(name, value, count)],
        _read_flags("multi_label", multi_label, count),
        _read_given_spans(input_spans, count),
        strict=True,
    )
    return [Task(*values) for values in columns]


def _read_labels(labels: object, count: int) -> list[LabelSet]:
    """Return the labels of each text."""
    if isinstance(labels, list | tuple) and any(
        isinstance(item, list | tuple | Mapping) for item in labels
    ):
        sets = spread("labels", labels, count)
        for index, item in enumerate(sets):
            if not isinstance(item, list | tuple | Mapping):
                raise _bad_labels(f"labels[{index}]", item)
        return [_read_label_set(item, f"labels[{index}]") for index, item in enumerate(sets)]
    return [_read_label_set(labels, "labels")] * count


def _read_label_set(labels: object, where: str) -> LabelSet:
    given = [labels] if isinstance(labels, str) else labels
    if not isinstance(given, Iterable) or isinstance(given, bytes):
        raise _bad_labels(where, labels)
    names = list(given)
    prompts = list(given.values()) if isinstance(given, Mapping) else names
    if not names or not all(isinstance(item, str) and item.strip() for item in names + prompts):
        raise _bad_labels(where, labels)
    if not isinstance(given, Mapping):
        names = prompts = list(dict.fromkeys(names))
    elif len(set(prompts)) < len(prompts):
        raise InputError(
            f"{where}: expected a different description for each label, found {labels!r}; "
            "reword the repeated one"
        )
    return LabelSet(tuple(names), tuple(prompts))


def _bad_labels(where: str, found: object) -> InputError:
    return InputError(
        f"{where}: expected at least one label, each a string that is not empty, "
        f"found {found!r}; give for example ['person', 'date']"
    )


def _read_thresholds(
    threshold: object, label_sets: Sequence[LabelSet], own: OwnThresholds
) -> list[tuple[float, ...]]:
    """Return the thresholds of each text's labels."""
    values = spread("threshold", threshold, len(label_sets))
    return [_read_threshold(value, one, own) for value, one in zip(values, label_sets, strict=True)]


def _read_threshold(value: object, labels: LabelSet, own: OwnThresholds) -> tuple[float, ...]:
    if value is None:
        return tuple(map(own.of, labels.prompts))
    if not isinstance(value, Mapping):
        return (check_threshold("threshold", value),) * len(labels.names)
    given = {name: check_threshold(f"threshold[{name!r}]", value[name]) for name in value}
    pairs = zip(labels.names, labels.prompts, strict=True)
    return tuple(given.get(name, own.of(prompt)) for name, prompt in pairs)


def check_threshold(where: str, value: object) -> float:
    """Return a threshold that is one; `where` is what messages call it."""
    if not is_threshold(value):
        raise InputError(
            f"{where}: expected a number from 0 to 1, found {value!r}; "
            "a span is kept when its score is greater"
        )
    return float(value)


def _read_flags(name: str, value: object, count: int) -> list[bool]:
    values = spread(name, value, count)
    for item in values:
        if not isinstance(item, bool | np.bool_):
            raise InputError(
                f"{name}: expected True or False, found {item!r}; "
                "give one, or a list with one for each text"
            )
    return [bool(item) for item in values]


def _read_given_spans(spans: object, count: int) -> list[frozenset[tuple[int, int]] | None]:
    """Return the offsets that each text's spans are confined to."""
    if spans is None:
        return [None] * count
    if not isinstance(spans, list | tuple):
        raise _bad_spans(spans)
    try:
        return [
            frozenset((item["start"], item["end"]) for item in text_spans)
            for text_spans in spread("input_spans", spans, count)
        ]
    except (TypeError, KeyError) as error:
        raise _bad_spans(spans) from error


def _bad_spans(found: object) -> InputError:
    return InputError(
        f"input_spans: expected for each text a list of dicts with start and end, found {found!r}; "
        "give for example [[{'start': 0, 'end': 5}]]"
    )


def read_count(name: str, value: object, default: int) -> int:
    """Return a whole number of at least 1, or the default for None."""
    if value is None:
        return default
    if not is_count(value):
        raise InputError(
            f"{name}: expected a whole number of at least 1, found {value!r}; "
            f"leave it out for {default}"
        )
    return value


def spread(name: str, value: object, count: int) -> list[Any]:
    """Return one value per text, from one for all or a list of the right length."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise InputError(
            f"{name}: expected one value for all texts or a list of {count}, one for each text, "
            f"found a list of {len(value)}"
        )
    return list(value)

"""Stand-ins for the command's surroundings: a model that needs no bundle, a terminal."""

import io
from itertools import pairwise

from nerlet.decode import Span


class FakeModel:
    """Finds capitalised words, calls them by the first label and relates each to the next."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []
        self.loaded: list[str | None] = []
        self.graphs: list[str | None] = []

    def predict_entities(self, text, labels, **options):
        self.calls.append({"text": text, "labels": labels, **options})
        entities = []
        for word in text.split():
            if word[0].isupper():
                start = text.index(word)
                found = {"start": start, "end": start + len(word), "text": word}
                entities.append({**found, "label": labels[0], "score": 0.875})
        return entities

    def predict_relations(self, text, labels, relations, **options):
        entities = self.predict_entities(text, labels, **options)
        self.calls[-1]["relations"] = relations
        return entities, [
            {"head": head, "tail": tail, "relation": relations[0], "score": 0.75}
            for head, tail in pairwise(entities)
        ]

    def stream(self, texts, labels, relations=None, **options):
        if relations:
            return (self.predict_relations(text, labels, relations, **options) for text in texts)
        return (self.predict_entities(text, labels, **options) for text in texts)

    def predict_words(self, sentences, labels, **options):
        self.calls.append({"labels": labels, **options})
        return [
            [Span(i, i + 1, 0, 0.875) for i, word in enumerate(words) if word[0].isupper()]
            for words in sentences
        ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

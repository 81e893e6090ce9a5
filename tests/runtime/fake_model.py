"""Stand-ins for the command's surroundings: a model that needs no bundle, a terminal."""

import io

from nerlet.decode import Span


class FakeModel:
    """Finds capitalised words and calls them by the first label."""

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

    def stream(self, texts, labels, **options):
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

"""Does one decision threshold suit short texts and long ones?

    python benchmarks/lengths.py [FOLDER] [--model DIR]

The texts of each file are read in five forms: those of a length, in words, in three ranges, and
joined, neighbours to neighbours, until a text has so many words, in two. For each form: F1 at the
model's own threshold, the threshold with the best F1, and that F1; plain means over the files that
have at least 30 entities in that form. FOLDER is by default dev/zero, which the default model's
threshold was chosen on.
Written: `results/lengths.json`.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nerlet
from harness import machine_card
from nerlet.bundle import default_bundle_path
from nerlet.decode import Span
from nerlet.evaluate import Judgement, judge, mean_f1_by_threshold
from nerlet.examples import Dataset, Example, list_datasets, read_dataset
from tables import to_markdown

_RESULTS = Path(__file__).parent / "results"
_GRID = tuple(round(0.05 * n, 2) for n in range(4, 17))
_MIN_ENTITIES = 30


def main() -> None:
    """Measure every form and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", default="dev/zero", help="labelled files")
    parser.add_argument("--model", type=Path, default=default_bundle_path(), help="a bundle")
    options = parser.parse_args()
    model = nerlet.load(options.model)

    def predict(sentences: Sequence[Sequence[str]], labels: Sequence[str]) -> list[list[Span]]:
        return model.predict_words(sentences, list(labels), threshold=_GRID[0])

    datasets = [read_dataset(path) for path in list_datasets(options.folder)]
    forms: dict[str, Callable[[Dataset], Dataset]] = {
        "up to 15 words": lambda dataset: keep(dataset, 1, 15),
        "16 to 30 words": lambda dataset: keep(dataset, 16, 30),
        "over 30 words": lambda dataset: keep(dataset, 31, 10**6),
        "joined to 100 words": lambda dataset: join(dataset, 100),
        "joined to 250 words": lambda dataset: join(dataset, 250),
    }
    results = []
    for name, form in forms.items():
        judged = [judge(predict, form(dataset)) for dataset in datasets]
        judged = [item for item in judged if item.annotated.sum() >= _MIN_ENTITIES]
        results.append({"form": name, **measure(judged, model.threshold)})
    document = {"threshold": model.threshold, "machine": machine_card(), "results": results}
    (_RESULTS / "lengths.json").write_text(json.dumps(document, indent=1) + "\n")
    header = list(results[0])
    print("\n".join(to_markdown(header, [[str(row[key]) for key in header] for row in results])))


def measure(judged: Sequence[Judgement], threshold: float) -> dict[str, float]:
    """F1 in percent at a threshold, and the threshold with the best F1."""
    f1 = dict(zip(_GRID, mean_f1_by_threshold(judged, _GRID), strict=True))
    best = max(f1, key=lambda each: f1[each])
    (own,) = mean_f1_by_threshold(judged, [threshold])
    return {
        "files": len(judged),
        "texts": sum(item.sentences for item in judged),
        "F1": round(100 * own, 2),
        "best threshold": best,
        "F1 there": round(100 * f1[best], 2),
    }


def keep(dataset: Dataset, least: int, most: int) -> Dataset:
    """The texts of so many words."""
    return replace(
        dataset, examples=tuple(e for e in dataset.examples if least <= len(e.words) <= most)
    )


def join(dataset: Dataset, words: int) -> Dataset:
    """Neighbours that are asked for the same types, joined up to so many words."""
    return replace(dataset, examples=tuple(_join(dataset.examples, words)))


def _join(examples: Sequence[Example], words: int) -> Iterator[Example]:
    if not examples:
        return
    first, *others = examples
    for example in others:
        at = len(first.words)
        if example.labels != first.labels or at + len(example.words) > words:
            yield first
            first = example
            continue
        moved = {(start + at, end + at, name) for start, end, name in example.entities}
        first = replace(
            first, words=first.words + example.words, entities=first.entities | frozenset(moved)
        )
    yield first


if __name__ == "__main__":
    main()

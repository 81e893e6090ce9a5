"""What the `nerlet` commands do: extract, tell what a model is, measure it, calibrate it.

What one command alone needs is imported there, so that the others start sooner.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nerlet.errors import InputError

if TYPE_CHECKING:
    from tqdm import tqdm

    from nerlet.calibrate import Calibration
    from nerlet.decode import Candidates, Span
    from nerlet.entities import Entity
    from nerlet.examples import Dataset
    from nerlet.model import GLiNER
    from nerlet.relations import Relation


def extract(options: argparse.Namespace) -> None:
    """Print the entities of each text, and its relations, as soon as they are found."""
    from nerlet.columns import find_width
    from nerlet.model import load
    from nerlet.render import can_show_colour, render_entities, render_relations

    if bool(options.texts) == (options.file is not None):
        raise InputError("expected either texts or --file, got both or neither")
    texts = options.texts or _read_lines(options.file)
    model = load(options.model, graph=options.graph)
    as_table = (options.format or _default_format()) == "table"
    colour, width = can_show_colour(sys.stdout), find_width(sys.stdout)
    for text, entities, relations in _find_all(model, texts, options):
        if as_table:
            line = render_entities(text, entities, options.label, colour=colour, width=width)
            if relations is not None:
                line += "\n" + render_relations(relations, colour=colour, width=width)
        else:
            own = {} if relations is None else {"relations": relations}
            line = json.dumps({"text": text, "entities": entities, **own}, ensure_ascii=False)
        _print_out(line)


def _find_all(
    model: "GLiNER", texts: Iterable[str], options: argparse.Namespace
) -> "Iterator[tuple[str, list[Entity], list[Relation] | None]]":
    """Yield each text, its entities, and the relations where they are asked for.

    Of a file many texts run at once, else each as it comes.
    """
    choices: dict[str, Any] = {
        "flat_ner": not options.nested,
        "threshold": options.threshold,
        "multi_label": options.multi_label,
    }
    if options.relation:
        choices["relations"] = options.relation
    shown, read = tee(texts)
    found: Iterator[Any]  # pairs where relations are asked for
    if options.file not in (None, "-"):
        found = model.stream(read, options.label, **choices)
    else:
        find = model.predict_relations if options.relation else model.predict_entities
        found = (find(text, options.label, **choices) for text in read)
    for text, own in zip(shown, found, strict=True):
        yield text, *(own if options.relation else (own, None))


def info(options: argparse.Namespace) -> None:
    """Print what a model directory is."""
    from nerlet.bundle import default_bundle_path, open_bundle
    from nerlet.columns import find_width
    from nerlet.describe import describe_bundle
    from nerlet.render import render_sections

    bundle = open_bundle(options.model or default_bundle_path(), options.graph)
    _print_out(render_sections(describe_bundle(bundle), width=find_width(sys.stdout)))


def evaluate(options: argparse.Namespace) -> None:
    """Print precision, recall and F1 of a model on labelled files."""
    from nerlet.columns import find_width
    from nerlet.evaluate import check_prompts, list_datasets, read_dataset
    from nerlet.evaluate import evaluate as evaluate_dataset
    from nerlet.model import load
    from nerlet.render import render_scores, scores_to_json

    # Every file is checked before the first is run: a bad one is told at once, not after an hour.
    files = list_datasets(options.data)
    datasets = [read_dataset(file).first(options.limit) for file in files]
    model = load(options.model, graph=options.graph)

    def predict(sentences: Sequence[Sequence[str]], labels: Sequence[str]) -> "list[list[Span]]":
        return model.predict_words(sentences, list(labels), threshold=options.threshold)

    for file, dataset in zip(files, datasets, strict=True):
        check_prompts(predict, dataset, file)
    scores = []
    with _show_progress(datasets) as bar:
        for dataset in datasets:
            bar.set_description(dataset.name)
            scores.append(evaluate_dataset(predict, dataset, on_done=bar.update))
    if options.json:
        _print_out(
            json.dumps(scores_to_json(scores, per_type=options.per_type), ensure_ascii=False)
        )
    else:
        width = find_width(sys.stdout)
        _print_out(render_scores(scores, per_type=options.per_type, width=width))


def calibrate(options: argparse.Namespace) -> None:
    """Choose thresholds on labelled files, tell what they gain, and store them in the model."""
    from nerlet.columns import find_width
    from nerlet.model import load
    from nerlet.render import calibration_to_json, render_calibration
    from nerlet.store import check_storable, store_thresholds

    if (options.data is None) != options.reset:
        raise InputError("expected either DATA or --reset, got both or neither")
    if options.reset:
        _reset_thresholds(options)
        return
    model = load(options.model)
    if not options.dry_run:
        check_storable(model.bundle)
    found = _find_thresholds(model, options)
    if options.json:
        _print_out(json.dumps(calibration_to_json(found), ensure_ascii=False))
    else:
        _print_out(render_calibration(found, width=find_width(sys.stdout)))
    if found.thresholds == model.own_thresholds:
        print_problem("the model has these thresholds already: nothing written")
        return
    if found.average_f1("after") <= found.average_f1("before"):
        print_problem("warning: no gain on held-out texts; more texts may help")
    if options.dry_run:
        print_problem("dry run: nothing written")
    else:
        store_thresholds(model.bundle, found.thresholds)
        print_problem(f"thresholds stored in {model.bundle.path}")


def _find_thresholds(model: "GLiNER", options: argparse.Namespace) -> "Calibration":
    from nerlet.calibrate import calibrate as choose
    from nerlet.calibrate import lowest_threshold
    from nerlet.evaluate import check_prompts, list_datasets, read_dataset
    from nerlet.scored import score_texts

    files = list_datasets(options.data)
    datasets = [read_dataset(file).first(options.limit) for file in files]
    present = model.own_thresholds
    lowest = lowest_threshold(present)

    def predict(sentences: Sequence[Sequence[str]], labels: Sequence[str]) -> "list[list[Span]]":
        return model.predict_words(sentences, list(labels))

    def score(sentences: Sequence[Sequence[str]], labels: Sequence[str]) -> "list[Candidates]":
        return model.score_words(sentences, list(labels), threshold=lowest)

    for file, dataset in zip(files, datasets, strict=True):
        check_prompts(predict, dataset, file)
    with _show_progress(datasets) as bar:
        scored = score_texts(score, datasets, on_done=bar.update)
    return choose(scored, present, min_entities=options.min_entities, folds=options.folds)


def _reset_thresholds(options: argparse.Namespace) -> None:
    """Take the thresholds of single labels away; the overall one stays."""
    from nerlet.bundle import default_bundle_path, open_bundle
    from nerlet.store import remove_label_thresholds

    bundle = open_bundle(options.model or default_bundle_path())
    count = len(bundle.label_thresholds)
    if options.dry_run:
        print_problem(f"dry run: nothing written; there are {count} thresholds of single labels")
        return
    remove_label_thresholds(bundle)
    print_problem(f"{count} thresholds of single labels taken out of {bundle.path}")


def _read_lines(path: str) -> Iterator[str]:
    """The lines of a file or of stdin (`-`) without their ends, one at a time."""
    name = "stdin" if path == "-" else path
    # Bytes, so that a bad line can be named, and only line feeds end a line.
    with sys.stdin.buffer if path == "-" else Path(path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{name}, line {number}: expected UTF-8, got byte 0x{line[error.start]:02x} "
                    f"at {error.start}; convert the file"
                ) from error
            yield text.removesuffix("\n").removesuffix("\r")


def _show_progress(datasets: "Sequence[Dataset]") -> "tqdm":
    """A bar on stderr over the sentences of all files, where that is a terminal."""
    from tqdm import tqdm

    total = sum(len(dataset.examples) for dataset in datasets)
    return tqdm(total=total, unit=" sentences", disable=None, leave=False)


def _default_format() -> str:
    return "table" if sys.stdout.isatty() else "jsonl"


def _print_out(text: str) -> None:
    """Print at once, so that a reader down the pipe sees each result as it comes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_problem(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"nerlet: {' '.join(message.split())}\n")

"""The `nerlet` command: extract entities, tell what a model is, measure one on labelled texts.

Models and numpy are imported by the commands that need them, so that `--help` is quick.
"""

import argparse
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nerlet.errors import InputError, NerletError

if TYPE_CHECKING:
    from tqdm import tqdm

    from nerlet.bundle import Bundle
    from nerlet.calibrate import Calibration
    from nerlet.decode import Candidates, Span
    from nerlet.examples import Dataset

_EXIT_USAGE = 2
# What a shell reports for a command that the signal ended.
_EXIT_INTERRUPTED = 128 + signal.SIGINT
_EXIT_BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: Without the program's name; None takes them from the command line.

    Returns:
        0, or 2 where the input or model is bad (one line on stderr says what), 130 after Ctrl-C,
        141 where the reader of the output went away.
    """
    options = _make_parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Texts and JSON, whatever the locale says; half a character as JSON escapes it.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.simplefilter("always", UserWarning)  # each text that was cut, not the first
            options.run(options)
            sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more: let the interpreter's last flush go nowhere, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except (NerletError, OSError) as error:
        _print_problem(str(error))
        return _EXIT_USAGE
    return 0


def extract(options: argparse.Namespace) -> None:
    """Print the entities of each text as soon as they are found."""
    from nerlet.columns import find_width
    from nerlet.model import load
    from nerlet.render import can_show_colour, render_entities

    if bool(options.texts) == (options.file is not None):
        raise InputError("expected either texts or --file, got both or neither")
    texts = options.texts or _read_lines(options.file)
    model = load(options.model)
    as_table = (options.format or _default_format()) == "table"
    colour, width = can_show_colour(sys.stdout), find_width(sys.stdout)
    for text in texts:
        entities = model.predict_entities(
            text,
            options.label,
            flat_ner=not options.nested,
            threshold=options.threshold,
            multi_label=options.multi_label,
        )
        if as_table:
            line = render_entities(text, entities, options.label, colour=colour, width=width)
        else:
            line = json.dumps({"text": text, "entities": entities}, ensure_ascii=False)
        _print_out(line)


def info(options: argparse.Namespace) -> None:
    """Print what a model directory is."""
    from nerlet.bundle import default_bundle_path, open_bundle
    from nerlet.columns import find_width
    from nerlet.describe import describe_bundle
    from nerlet.render import render_sections

    bundle = open_bundle(options.model or default_bundle_path())
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
    model = load(options.model)

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
    from nerlet.bundle import default_bundle_path, open_bundle
    from nerlet.columns import find_width
    from nerlet.render import calibration_to_json, render_calibration
    from nerlet.store import check_storable, store_thresholds

    if (options.data is None) != options.reset:
        raise InputError("expected either DATA or --reset, got both or neither")
    bundle = open_bundle(options.model or default_bundle_path())
    if not options.dry_run:
        check_storable(bundle)
    if options.reset:
        _reset_thresholds(bundle, dry_run=options.dry_run)
        return
    found = _find_thresholds(options)
    if options.json:
        _print_out(json.dumps(calibration_to_json(found), ensure_ascii=False))
    else:
        _print_out(render_calibration(found, width=find_width(sys.stdout)))
    if found.average_f1("after") <= found.average_f1("before"):
        _print_problem("warning: no gain on held-out texts; more texts may help")
    if options.dry_run:
        _print_problem("dry run: nothing written")
    else:
        store_thresholds(bundle, found.thresholds)
        _print_problem(f"thresholds stored in {bundle.path}")


def _find_thresholds(options: argparse.Namespace) -> "Calibration":
    from nerlet.calibrate import calibrate as choose
    from nerlet.calibrate import lowest_threshold
    from nerlet.evaluate import check_prompts, list_datasets, read_dataset
    from nerlet.model import load
    from nerlet.scored import score_texts

    files = list_datasets(options.data)
    datasets = [read_dataset(file).first(options.limit) for file in files]
    model = load(options.model)
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


def _reset_thresholds(bundle: "Bundle", *, dry_run: bool) -> None:
    """Take the thresholds of single labels away; the overall one stays."""
    from nerlet.store import remove_label_thresholds

    count = len(bundle.label_thresholds)
    if dry_run:
        _print_problem(f"dry run: nothing written; there are {count} thresholds of single labels")
        return
    remove_label_thresholds(bundle)
    _print_problem(f"{count} thresholds of single labels taken out of {bundle.path}")


class _Parser(argparse.ArgumentParser):
    """A parser that reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        """End the program with the message and where to find help."""
        _print_problem(f"{message} (see {self.prog} --help)")
        sys.exit(_EXIT_USAGE)


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nerlet", description="Find entities of any types in text.")
    parser.add_argument("--version", action="version", version=f"nerlet {version('nerlet')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_extract(commands)
    _add_info(commands)
    _add_evaluate(commands)
    _add_calibrate(commands)
    return parser


def _add_extract(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser(
        "extract",
        help="find entities in texts",
        description="Find the entities of the given types.",
        epilog='example: nerlet extract -l person -l date "Ada Lovelace was born in 1815."',
    )
    command.set_defaults(run=extract)
    command.add_argument("texts", type=_read_text, nargs="*", metavar="TEXT", help="texts to read")
    command.add_argument(
        "-l",
        "--label",
        type=_read_text,
        action="append",
        required=True,
        help="a type to find; give one or more",
    )
    command.add_argument("--file", metavar="PATH", help="one text a line, UTF-8; - is stdin")
    _add_threshold(command)
    command.add_argument("--nested", action="store_true", help="let entities lie in others")
    command.add_argument(
        "--multi-label", action="store_true", help="let one span have several of the types"
    )
    _add_model(command)
    command.add_argument(
        "--format",
        choices=("table", "jsonl"),
        help="jsonl: one object a line with text and entities (default: table on a terminal, "
        "else jsonl)",
    )


def _add_info(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser(
        "info", help="tell what a model is", description="Tell what a model directory is."
    )
    command.set_defaults(run=info)
    command.add_argument("model", nargs="?", metavar="DIR", help="default: the model shipped")


def _add_evaluate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure a model on labelled texts",
        description="Exact-match precision, recall and F1 for each file, and their average.",
        epilog="A relative DATA that does not exist here is looked up under the folder that the "
        "environment variable NERLET_DATA names: NERLET_DATA=/data nerlet evaluate eval/ood",
    )
    command.set_defaults(run=evaluate)
    command.add_argument(
        "data", metavar="DATA", help="a .jsonl or .jsonl.gz file, or a folder of such files"
    )
    _add_model(command)
    _add_threshold(command)
    command.add_argument("--json", action="store_true", help="print one JSON object, in percent")
    command.add_argument("--per-type", action="store_true", help="the figures of each type, too")
    command.add_argument(
        "--limit", type=_read_count, metavar="N", help="read the first N texts of each file"
    )


def _add_calibrate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser(
        "calibrate",
        help="choose a model's thresholds on labelled texts",
        description="Find the threshold, and those of single labels, with the best mean F1 over "
        "the files, and store them in the model. What they gain is measured on held-out texts.",
        epilog="DATA is looked up as for evaluate.",
    )
    command.set_defaults(run=calibrate)
    command.add_argument(
        "data", nargs="?", metavar="DATA", help="a .jsonl or .jsonl.gz file, or a folder of such"
    )
    _add_model(command)
    command.add_argument(
        "--min-entities",
        type=_read_count,
        default=20,
        metavar="N",
        help="a label with fewer entities has no threshold of its own (default: %(default)s)",
    )
    command.add_argument(
        "--folds",
        type=_read_folds,
        default=5,
        metavar="N",
        help="parts of the texts, each held out once to measure (default: %(default)s)",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object, in percent")
    command.add_argument(
        "--limit", type=_read_count, metavar="N", help="read the first N texts of each file"
    )
    command.add_argument("--dry-run", action="store_true", help="measure, write nothing")
    command.add_argument(
        "--reset", action="store_true", help="take stored thresholds of single labels away"
    )


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", metavar="DIR", help="model directory (default: the one shipped)"
    )


def _add_threshold(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--threshold", type=float, help="keep scores above it, 0 to 1 (default: the model's own)"
    )


def _read_count(text: str) -> int:
    """A positive whole number; argparse reports a ValueError."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {count}")
    return count


def _read_folds(text: str) -> int:
    """A whole number of at least 2."""
    count = _read_count(text)
    if count < 2:
        raise argparse.ArgumentTypeError(f"expected a number of at least 2, got {count}")
    return count


def _read_text(argument: str) -> str:
    """A text of the command line from its bytes, which are UTF-8 whatever the locale says."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(f"expected UTF-8, got {argument!a}") from error


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


def _print_problem(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"nerlet: {' '.join(message.split())}\n")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning in one line, without the place in our source."""
    _print_problem(f"warning: {message}")

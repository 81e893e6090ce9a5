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
    from nerlet.decode import Span

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
    from tqdm import tqdm

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
    total = sum(len(dataset.examples) for dataset in datasets)
    with tqdm(total=total, unit=" sentences", disable=None, leave=False) as bar:
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

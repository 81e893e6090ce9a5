"""The command line of `nerlet`: its options, its errors and its exit status."""

import argparse
import io
import math
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from nerlet.calibrate import FOLDS, MIN_ENTITIES
from nerlet.commands import calibrate, evaluate, extract, info, print_problem
from nerlet.errors import NerletError

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
        print_problem(str(error))
        return _EXIT_USAGE
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        """End the program with the message and where to find help."""
        print_problem(f"{message} (see {self.prog} --help)")
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
        description="Find the entities of the given types and, with a joint model, the relations "
        "between them.",
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
    command.add_argument(
        "-r",
        "--relation",
        type=_read_text,
        action="append",
        help="a relation to find between entities, of a joint model; give one or more",
    )
    command.add_argument("--file", metavar="PATH", help="one text a line, UTF-8; - is stdin")
    _add_threshold(command)
    command.add_argument("--nested", action="store_true", help="let entities lie in others")
    command.add_argument(
        "--multi-label", action="store_true", help="let one span have several of the types"
    )
    _add_model(command)
    _add_graph(command)
    command.add_argument(
        "--format",
        choices=("table", "jsonl"),
        help="jsonl: one object a line with text, entities and relations (default: table on a "
        "terminal, else jsonl)",
    )


def _add_info(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser(
        "info", help="tell what a model is", description="Tell what a model directory is."
    )
    command.set_defaults(run=info)
    command.add_argument("model", nargs="?", metavar="DIR", help="default: the model shipped")
    _add_graph(command)


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
    _add_graph(command)
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
        default=MIN_ENTITIES,
        metavar="N",
        help="a label with fewer entities has no threshold of its own (default: %(default)s)",
    )
    command.add_argument(
        "--folds",
        type=_read_folds,
        default=FOLDS,
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


def _add_graph(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--graph",
        metavar="FILE",
        help="ONNX file of the model to run, such as model_quantized.onnx (default: the one that "
        "suits the CPU)",
    )


def _add_threshold(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--threshold",
        type=_read_threshold,
        help="keep scores above it, 0 to 1 (default: the model's own)",
    )


def _read_threshold(text: str) -> float:
    """A number from 0 to 1."""
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return threshold


def _read_count(text: str, least: int = 1) -> int:
    """A whole number of at least `least`."""
    try:
        count = int(text)
    except ValueError:
        count = least - 1
    if count < least:
        raise argparse.ArgumentTypeError(f"expected a number of at least {least}, got {text}")
    return count


def _read_folds(text: str) -> int:
    """A whole number of at least 2."""
    return _read_count(text, least=2)


def _read_text(argument: str) -> str:
    """A text of the command line from its bytes, which are UTF-8 whatever the locale says."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(f"expected UTF-8, got {argument!a}") from error


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning in one line, without the place in our source."""
    print_problem(f"warning: {message}")

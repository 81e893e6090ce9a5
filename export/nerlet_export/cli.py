"""The `nerlet-export` command: train, average, shrink, convert."""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from nerlet.errors import InputError, NerletError
from nerlet.manifest import PRECISIONS, is_count
from nerlet_export.settings import read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done, 2 on bad input with a line that says what, 130 when stopped."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        _print_problem("stopped; `train` goes on with --resume")
        return 130
    except (NerletError, OSError) as error:
        _print_problem(str(error))
        return 2


class _Parser(argparse.ArgumentParser):
    """A parser that reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        """End the program with the message and where to find help."""
        _print_problem(f"{message} (see {self.prog} --help)")
        sys.exit(2)


def _print_problem(message: str) -> None:
    """One line on stderr; causes from other libraries span lines."""
    sys.stderr.write(f"nerlet-export: {' '.join(message.split())}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nerlet-export", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a model as a TOML file describes it")
    train.add_argument("settings", metavar="RUN.toml")
    train.add_argument("--resume", action="store_true", help="go on from the run's last state")
    train.add_argument("--threads", type=int, help="PyTorch's threads, instead of the file's")
    train.set_defaults(run=_train)
    average = commands.add_parser("average", help="average the weights of checkpoints of one run")
    average.add_argument("checkpoints", metavar="CHECKPOINT_DIR", nargs="+")
    average.add_argument("copy", metavar="OUT_DIR")
    average.add_argument("--dev", metavar="DIR", help="labelled files that choose its threshold")
    average.set_defaults(run=_average)
    shrink = commands.add_parser("shrink", help="copy a checkpoint in half precision")
    shrink.add_argument("checkpoint", metavar="CHECKPOINT_DIR")
    shrink.add_argument("copy", metavar="OUT_DIR")
    shrink.set_defaults(run=_shrink)
    convert = commands.add_parser("convert", help="turn a checkpoint into a verified bundle")
    convert.add_argument("checkpoint", metavar="CHECKPOINT_DIR")
    convert.add_argument("bundle", metavar="OUT_DIR")
    convert.add_argument("--precision", choices=PRECISIONS, default="int8")
    convert.add_argument(
        "--dev",
        metavar="DIR",
        action="append",
        default=[],
        help="labelled files that the bundle must hold on; may be given several times",
    )
    convert.add_argument("--threshold", type=float, help="the bundle's own threshold")
    convert.add_argument("--name", help="name of the model (default: the checkpoint folder's)")
    convert.add_argument("--license", help="licence of the weights")
    convert.add_argument("--origin", help="where the weights come from, in a sentence")
    convert.set_defaults(run=_convert)
    return parser


def _train(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from nerlet_export.train import train

    settings = read_settings(options.settings)
    if options.threads is not None:
        if not is_count(options.threads):
            raise InputError(f"--threads is {options.threads}, expected at least 1")
        settings = replace(settings, threads=options.threads)
    train(settings, resume=options.resume)
    return 0


def _average(options: argparse.Namespace) -> int:
    from nerlet_export.average import average_checkpoints

    average_checkpoints(options.checkpoints, options.copy, dev=options.dev)
    return 0


def _shrink(options: argparse.Namespace) -> int:
    from nerlet_export.checkpoint import shrink_checkpoint

    shrink_checkpoint(options.checkpoint, options.copy)
    return 0


def _convert(options: argparse.Namespace) -> int:
    from nerlet_export.convert import About, convert

    about = About(options.name, options.origin, options.license, options.threshold)
    convert(
        options.checkpoint,
        options.bundle,
        precision=options.precision,
        about=about,
        dev=options.dev,
    )
    return 0

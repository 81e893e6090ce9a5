"""The `nerlet-export` command: data, finetune, train, average, shrink, convert."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import NoReturn

from nerlet.errors import InputError, NerletError
from nerlet.manifest import PRECISIONS, is_count
from nerlet_export.corpus import POLICIES
from nerlet_export.rows.detect import FORMATS
from nerlet_export.rows.labelled import Reading
from nerlet_export.rows.offsets import MISFITS
from nerlet_export.settings import Tuning, read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done, 2 on bad input with a line that says what, 130 when stopped."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("nerlet_export").setLevel(logging.INFO)  # onnxruntime's would list nodes
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        _print_problem("stopped; `train` and `finetune` go on with --resume")
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
    _add_data(commands)
    _add_finetune(commands)
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
        "--fp16", action="store_true", help="add a graph in half precision, for CUDA"
    )
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


def _add_data(commands: "argparse._SubParsersAction[_Parser]") -> None:
    data = commands.add_parser("data", help="turn labelled files of other tools into rows")
    data.add_argument("inputs", metavar="INPUT", nargs="+", help="CoNLL, JSON or .spacy")
    data.add_argument("output", metavar="OUTPUT.jsonl")
    data.add_argument("--format", choices=FORMATS, default="", help="default: by content")
    data.add_argument("--word-column", type=int, default=1, help="of CoNLL files, from 1")
    data.add_argument("--tag-column", type=int, default=-1, help="default: -1, the last")
    data.add_argument(
        "--misfits", choices=MISFITS, default="error", help="what becomes of spans that cut words"
    )
    data.add_argument("--spans-key", default="", help="span group of .spacy files to read")
    data.add_argument("--source", help="name of the rows' source (default: their own, or own)")
    data.add_argument(
        "--negatives",
        choices=POLICIES,
        help="which absent types are certain (default: the rows' own, or closed: all of the files)",
    )
    data.add_argument("--license", help="licence class of the rows")
    data.add_argument("--rename", metavar="OLD=NEW", action="append", default=[], help="a type")
    data.add_argument(
        "--split", metavar="NAME=SHARE", action="append", default=[], help="such as dev=0.1"
    )
    data.add_argument("--seed", type=int, default=0, help="of the shuffle that splits")
    data.set_defaults(run=_data)


def _data(options: argparse.Namespace) -> int:
    from nerlet_export.convert_data import Writing, convert_data

    reading = Reading(**{item.name: getattr(options, item.name) for item in fields(Reading)})
    writing = Writing(
        source=options.source,
        negatives=options.negatives,
        license=options.license,
        renames=_pairs(options.rename, "--rename"),
        splits={
            name: _share(name, text) for name, text in _pairs(options.split, "--split").items()
        },
        seed=options.seed,
    )
    convert_data(options.inputs, options.output, reading=reading, writing=writing)
    return 0


def _add_finetune(commands: "argparse._SubParsersAction[_Parser]") -> None:
    own = commands.add_parser("finetune", help="train a checkpoint further on your own rows")
    own.set_defaults(run=_finetune, **asdict(Tuning()))
    own.add_argument("train", metavar="TRAIN.jsonl")
    own.add_argument(
        "dev",
        metavar="DEV.jsonl",
        help="file or folder that chooses the checkpoint; 1000 rows a file count",
    )
    own.add_argument("directory", metavar="OUT_DIR", help="the result is in its folder `best`")
    own.add_argument("--resume", action="store_true", help="go on from the run's last state")
    own.add_argument("--start", metavar="CHECKPOINT_DIR", help="default: the default model")
    own.add_argument("--epochs", type=float, help="passes over the rows (%(default)g)")
    own.add_argument("--encoder-lr", type=float, help="peak rate (%(default)g)")
    own.add_argument("--head-lr", type=float, help="peak rate of the rest (%(default)g)")
    own.add_argument("--batch-pieces", type=int, help="pieces of a step (%(default)s)")
    own.add_argument(
        "--patience", type=int, help="measurements without a better F1 (%(default)s); 0: all steps"
    )
    own.add_argument("--seed", type=int, help="of everything drawn (%(default)s)")
    own.add_argument("--threads", type=int, help="PyTorch's threads (its own default)")


def _finetune(options: argparse.Namespace) -> int:
    from nerlet_export.finetune import finetune

    tuning = Tuning(**{item.name: getattr(options, item.name) for item in fields(Tuning)})
    best = finetune(
        options.train, options.dev, options.directory, tuning=tuning, resume=options.resume
    )
    logging.getLogger(__name__).info("%s: the checkpoint that is best on dev", best)
    return 0


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """What an option that is given as NAME=VALUE says, by name."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not (sign and name and value):
            raise InputError(f"{option} is {text!r}, expected NAME=VALUE")
        if name in pairs:
            raise InputError(f"{option} is given twice for {name!r}")
        pairs[name] = value
    return pairs


def _share(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"--split gives {name} {text!r}, expected a number") from error


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
        fp16=options.fp16,
        about=about,
        dev=options.dev,
    )
    return 0

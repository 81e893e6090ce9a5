"""Train a span model as one TOML file describes it, with exact resume.

The loop is `train`; what it needs (batches of a step, optimiser, checkpoints, dev) comes first. A
step's examples follow from (seed, step), so a resumed run sees what an unbroken one would have.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nerlet.errors import InputError, NerletError
from nerlet.examples import Dataset, find_data
from nerlet_export.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    start_model,
    write_card,
)
from nerlet_export.corpus import Corpus, build_corpus, limit_rows, read_rows
from nerlet_export.data import Batch, Example, Layout, make_batch
from nerlet_export.derive import DERIVATIONS
from nerlet_export.dev import Dev, measure, read_dev
from nerlet_export.loss import span_loss
from nerlet_export.model import SpanModel
from nerlet_export.optimizer import keep_rates, make_optimizer, schedule
from nerlet_export.precision import autocast
from nerlet_export.predict import prompt_layout
from nerlet_export.running_mean import RunningMean
from nerlet_export.runstate import STATE_NAME, RunState, Stateful, StopRequest
from nerlet_export.sampling import draw_examples
from nerlet_export.settings import Settings
from nerlet_export.teacher import Teacher

logger = logging.getLogger(__name__)

# Batches drawn together, then sorted by length and cut, so that texts of a batch are alike.
_POOL_BATCHES = 8
# Measurements on dev, a line each.
DEV_LOG_NAME = "dev.jsonl"


def train(
    settings: Settings,
    *,
    resume: bool = False,
    on_step: Callable[[int], object] = lambda _: None,
) -> Dev | None:
    """Train, and leave the last checkpoint in `last`, the best on dev in `best`.

    With dev data, `best` is the run's result, and with `patience` it is why the run ends early. A
    run from a checkpoint measures that first, so that `best` is never worse than the start.

    Args:
        settings: The run.
        resume: Go on from the run's own last state, if there is one.
        on_step: Called with the number of steps done after each.

    Returns:
        The last measurement on dev; None without dev data, or where nothing was left to do.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the step under way was finished and saved first.
        InputError: The directory holds a run and `resume` was not asked for, the device is not
            there, or as in what reads models and rows.
        NerletError: The loss is not finite.
    """
    _check_directory(settings, resume=resume)
    device = _set_up(settings)
    checkpoint = _start(settings)
    model = checkpoint.span_model.to(device)
    optimizer = make_optimizer(model, settings.optimization)
    mean = RunningMean(model, settings.optimization.average)
    checkpoint = replace(checkpoint, model=mean.model)
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "mean": mean}
    with keep_rates(optimizer):
        state = RunState.load(settings, parts) if resume else RunState()
    steps = settings.optimization.steps
    if state.is_done(settings):
        logger.info("%s: done at step %d of %d", settings.directory, state.step, steps)
        return None
    dev_sets = read_dev(settings)
    corpus = load_corpus(settings, checkpoint)
    layout = prompt_layout(checkpoint)
    mixture = settings.data.mixture or {s: float(len(r)) for s, r in corpus.rows.items()}
    teacher = _load_teacher(settings, checkpoint, corpus, device)
    dev = None
    batches = _batches(corpus, mixture, layout, settings, state.step, teacher)
    with progress_bar(steps, state.step) as bar, StopRequest() as stop:
        if dev_sets and settings.start and state.step == 0:
            dev = _measure(settings, checkpoint, state, dev_sets)
        while not state.is_done(settings):
            batch = next(batches)
            loss = train_step(model, optimizer, batch.to(device), settings, state.step)
            mean.update()
            state.count(batch, loss)
            bar.update()
            on_step(state.step)
            speed = f"{state.words_per_second():.0f} words/s"
            bar.set_postfix_str(f"loss {state.loss:.3f}, {speed}", refresh=False)
            if dev_sets and (state.step >= steps or state.step % settings.dev_every == 0):
                dev = _measure(settings, checkpoint, state, dev_sets)
            is_last = state.is_done(settings)
            if is_last:  # before its state, after which nothing is left to do
                save_checkpoint(settings.directory / "last", checkpoint)
                _write_card(settings.directory / "last", settings, state, dev)
            if is_last or stop.is_requested or state.step % settings.save_every == 0:
                state.save(settings, parts)
            if stop.is_requested:
                raise KeyboardInterrupt
    return dev


def progress_bar(steps: int, done: int) -> "tqdm[None]":
    """A bar on stderr; into a file, a line a minute."""
    every = 0.5 if sys.stderr.isatty() else 60.0
    return tqdm(
        total=steps, initial=done, unit="step", smoothing=0.05, mininterval=every, maxinterval=every
    )


def train_step(
    model: SpanModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    settings: Settings,
    step: int,
) -> float:
    """One step of the optimiser; the loss before it."""
    options = settings.optimization
    model.train()
    rate = schedule(step, options.steps, options.warm_up)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * rate
    with autocast(settings.precision, batch.words.device):
        logits = model.score_batch(batch)
    loss = span_loss(
        logits,
        batch,
        positive_weight=options.positive_weight,
        focal=options.focal,
        smoothing=options.smoothing,
    )
    if not torch.isfinite(loss):
        raise NerletError(
            f"step {step}: the loss is {loss.item()}; lower encoder_lr and head_lr, or use fp32, "
            "and resume"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if options.clip_norm > 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
    optimizer.step()
    return loss.item()


def step_examples(
    corpus: Corpus, mixture: Mapping[str, float], layout: Layout, settings: Settings, pool: int
) -> list[list[Example]]:
    """The examples of `_POOL_BATCHES` neighbouring steps: like lengths together, steps shuffled."""
    rng = np.random.default_rng([settings.seed, pool])
    budget = settings.optimization.batch_pieces
    examples: list[Example] = []
    total = 0
    for example in draw_examples(corpus, mixture, settings.sampling, layout, rng):
        examples.append(example)
        total += example.size
        if total >= budget * _POOL_BATCHES and len(examples) >= _POOL_BATCHES:
            break
    examples.sort(key=lambda example: example.size)
    ends = np.cumsum([example.size for example in examples])
    cuts = np.searchsorted(ends, total * np.arange(1, _POOL_BATCHES) / _POOL_BATCHES)
    cuts = np.maximum(cuts, np.arange(1, _POOL_BATCHES))
    parts = [list(part) for part in np.split(np.array(examples, dtype=object), cuts) if len(part)]
    while len(parts) < _POOL_BATCHES:
        parts.append(parts[-1])
    return [parts[i] for i in rng.permutation(_POOL_BATCHES)]


def _batches(
    corpus: Corpus,
    mixture: Mapping[str, float],
    layout: Layout,
    settings: Settings,
    step: int,
    teacher: Teacher | None,
) -> Iterator[Batch]:
    """Batches from a step on, without end."""
    pool = step // _POOL_BATCHES
    skip = step % _POOL_BATCHES
    while True:
        for examples in step_examples(corpus, mixture, layout, settings, pool)[skip:]:
            batch = make_batch(examples, corpus.label_pieces, layout)
            yield batch if teacher is None else teacher.soften(batch, examples)
        pool, skip = pool + 1, 0


def load_corpus(settings: Settings, checkpoint: Checkpoint) -> Corpus:
    """Read the run's rows as pieces."""
    data = settings.data
    path, *extra = [find_data(name) for name in (data.train, *data.extra)]
    rows = [
        row
        for file in (path, *extra)
        for row in read_rows(file, licenses=data.licenses, negatives=data.negatives)
    ]
    if not rows:
        raise InputError(
            f"{path}: no rows of the licence classes {list(settings.data.licenses)!r}; rows that "
            'name none are of the class ""'
        )
    rows = limit_rows(rows, data.rows, settings.seed)
    rows += [row for name in data.derive for row in DERIVATIONS[name](rows)]
    sources = {row.source for row in rows}
    unknown = sorted(settings.data.mixture.keys() - sources)
    if unknown:
        raise InputError(
            f"{path}: mixture names {', '.join(unknown)}, of which no rows may be used; there are "
            f"{', '.join(sorted(map(str, sources)))}"
        )
    max_words = checkpoint.model.config.max_len
    corpus = build_corpus(rows, checkpoint.pieces, max_words=max_words)
    logger.info("%s: %d words, %d sources", path, corpus.words, len(corpus.rows))
    return corpus


def _measure(
    settings: Settings, checkpoint: Checkpoint, state: RunState, dev_sets: Sequence[Dataset]
) -> Dev:
    """Measure F1 on dev, log it, and keep the checkpoint where it is the best so far."""
    dev = measure(checkpoint, dev_sets, precision=settings.precision)
    line = {
        "step": state.step,
        "examples": state.examples,
        "seconds": round(state.total_seconds()),
        "loss": round(state.loss, 4) if state.step else None,
        "threshold": dev.threshold,
        "f1": round(100 * dev.f1, 2),
        "f1_at_half": round(100 * dev.f1_at_half, 2),
        "by_file": {name: round(100 * f1, 1) for name, f1 in dev.by_file.items()},
    }
    settings.directory.mkdir(parents=True, exist_ok=True)
    with (settings.directory / DEV_LOG_NAME).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    tqdm.write(json.dumps(line))
    if state.judge(dev.f1):
        save_checkpoint(settings.directory / "best", checkpoint)
        _write_card(settings.directory / "best", settings, state, dev)
    return dev


def _write_card(directory: Path, settings: Settings, state: RunState, dev: Dev | None) -> None:
    """Write what the checkpoint's bundle will say of its origin."""
    card: dict[str, Any] = {
        "encoder": settings.encoder or _name_start(settings.start),
        "data": {
            "files": [Path(name).name for name in (settings.data.train, *settings.data.extra)],
            "licenses": list(settings.data.licenses),
            "mixture": dict(settings.data.mixture),
        },
        "teacher": {
            "checkpoint": _name_start(settings.teacher.checkpoint),
            "share": settings.teacher.share,
        }
        if settings.teacher.checkpoint
        else None,
        "steps": state.step,
        "examples": state.examples,
        "words": state.words,
        "seconds": round(state.total_seconds()),
        "threshold": dev.threshold if dev else None,
        "dev": dev.percentages() if dev else {},
    }
    write_card(directory, card)


def _name_start(start: str) -> str:
    """A checkpoint's folder as it was given, but for where it lies on this computer."""
    path = Path(start)
    return "/".join(path.parts[-2:]) if path.is_absolute() else start


def _check_directory(settings: Settings, *, resume: bool) -> None:
    directory = settings.directory
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: expected a directory for the run, found a file")
    if not resume and (directory / STATE_NAME).exists():
        raise InputError(
            f"{directory}: it holds a run, which a new one would replace; go on with it by "
            "--resume, or give another directory"
        )


def _start(settings: Settings) -> Checkpoint:
    if settings.start:
        return load_checkpoint(settings.start)
    return start_model(settings.encoder, dict(settings.model))


def _load_teacher(
    settings: Settings, student: Checkpoint, corpus: Corpus, device: torch.device
) -> Teacher | None:
    options = settings.teacher
    if not options.checkpoint:
        return None
    checkpoint = load_checkpoint(options.checkpoint)
    checkpoint.model.to(device)
    labels = list(corpus.label_pieces)
    return Teacher(checkpoint, student, labels, share=options.share, precision=settings.precision)


def _set_up(settings: Settings) -> torch.device:
    """Give PyTorch its threads and its seed; the device to run on."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(settings.device)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(f"device is {settings.device!r}, but PyTorch finds {count} CUDA devices")
    return device

"""Train a span model as one TOML file describes it, with exact resume.

The loop is `train`; what it needs (batches of a step, optimiser, checkpoints, dev) comes first. A
step's examples follow from (seed, step), so a resumed run sees what an unbroken one would have.
"""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nerlet.evaluate import average_f1, judge, list_datasets, mean_f1_by_threshold, read_dataset
from nerlet_export.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, start_model
from nerlet_export.corpus import Corpus, build_corpus, draw_examples, read_rows
from nerlet_export.data import Batch, Example, Layout, make_batch
from nerlet_export.loss import span_loss
from nerlet_export.model import SpanModel
from nerlet_export.predict import TorchPredictor, prompt_layout
from nerlet_export.settings import Optimization, Settings

logger = logging.getLogger(__name__)

STATE_NAME = "state.pt"
CARD_NAME = "training.json"
# Batches drawn together, then sorted by length and cut, so that texts of a batch are alike.
_POOL_BATCHES = 8
_THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(2, 19))


@dataclass(frozen=True, slots=True)
class Dev:
    """F1 on dev: the best threshold, the mean over files there and at 0.5, and each file's."""

    threshold: float
    f1: float
    f1_at_half: float
    by_file: dict[str, float]


def train(settings: Settings, *, resume: bool = False) -> Dev | None:
    """Train, and leave the last checkpoint in `last`, the best on dev in `best`.

    Args:
        settings: The run.
        resume: Go on from the run's own last state, if there is one.

    Returns:
        The last measurement on dev; None without dev data.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    device = _device(settings)
    checkpoint = _start(settings)
    model = checkpoint.model.to(device)
    optimizer = make_optimizer(model, settings.optimization)
    state = _State.load(settings.directory, model, optimizer) if resume else _State()
    corpus = load_corpus(settings, checkpoint)
    layout = prompt_layout(checkpoint)
    mixture = settings.data.mixture or {s: float(len(r)) for s, r in corpus.rows.items()}
    steps = settings.optimization.steps
    dev = None
    with tqdm(total=steps, initial=state.step, unit="step", smoothing=0.05) as bar:
        for batch in _batches(corpus, mixture, layout, settings, state.step):
            loss = train_step(model, optimizer, batch.to(device), settings, state.step)
            state.count(batch, loss)
            bar.update()
            bar.set_postfix_str(f"loss {state.loss:.3f}, {state.words_per_second():.0f} words/s")
            is_last = state.step >= steps
            if settings.data.dev and (is_last or state.step % settings.dev_every == 0):
                dev = measure(checkpoint, settings)
                _record(settings, checkpoint, state, dev)
            if is_last or state.step % settings.save_every == 0:
                state.save(settings.directory, model, optimizer)
            if is_last:
                break
    save_checkpoint(settings.directory / "last", checkpoint)
    _write_card(settings.directory / "last", settings, state, dev)
    return dev


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
    with _autocast(settings, batch.words.device):
        logits = model.score_batch(batch)
    loss = span_loss(logits, batch, positive_weight=options.positive_weight)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if options.clip_norm > 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
    optimizer.step()
    return loss.item()


def schedule(step: int, steps: int, warm_up: float) -> float:
    """Share of the peak rate at a step: linear warm-up, then half a cosine down to 0."""
    rising = max(1, round(steps * warm_up))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def make_optimizer(model: SpanModel, options: Optimization) -> torch.optim.Optimizer:
    """AdamW with one rate for the encoder and one for what is new; no decay on vectors."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_encoder = name.startswith("encoder.model.")
        rate = options.encoder_lr if is_encoder else options.head_lr
        decay = options.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "peak_lr": rate, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
        fused=True,
    )


def step_examples(
    corpus: Corpus, mixture: Mapping[str, float], settings: Settings, pool: int
) -> list[list[Example]]:
    """The examples of `_POOL_BATCHES` neighbouring steps: like lengths together, steps shuffled."""
    rng = np.random.default_rng([settings.seed, pool])
    budget = settings.optimization.batch_pieces
    examples: list[Example] = []
    total = 0
    for example in draw_examples(corpus, mixture, settings.sampling, rng):
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
    corpus: Corpus, mixture: Mapping[str, float], layout: Layout, settings: Settings, step: int
) -> Iterator[Batch]:
    """Batches from a step on, without end."""
    pool = step // _POOL_BATCHES
    skip = step % _POOL_BATCHES
    while True:
        for examples in step_examples(corpus, mixture, settings, pool)[skip:]:
            yield make_batch(examples, corpus.label_pieces, layout)
        pool, skip = pool + 1, 0


class _State:
    """Where a run stands: step, examples and words seen, smoothed loss, best F1, seconds spent."""

    def __init__(self) -> None:
        self.step = 0
        self.examples = 0
        self.words = 0
        self.loss = math.nan
        self.best_f1 = -1.0
        self.seconds = 0.0
        self._began = time.monotonic()
        self._began_words = 0

    def count(self, batch: Batch, loss: float) -> None:
        """Count one step."""
        self.step += 1
        self.examples += len(batch.lengths)
        self.words += int(batch.lengths.sum())
        self.loss = loss if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * loss

    def words_per_second(self) -> float:
        """Words a second since the run began or resumed."""
        return (self.words - self._began_words) / max(time.monotonic() - self._began, 1e-9)

    def total_seconds(self) -> float:
        """Seconds spent, over all parts of the run."""
        return self.seconds + time.monotonic() - self._began

    def save(self, directory: Path, model: SpanModel, optimizer: torch.optim.Optimizer) -> None:
        """Write everything that an exact resume needs; the old state stays until it is written."""
        directory.mkdir(parents=True, exist_ok=True)
        values = {
            "counters": {
                "step": self.step,
                "examples": self.examples,
                "words": self.words,
                "loss": self.loss,
                "best_f1": self.best_f1,
                "seconds": self.total_seconds(),
            },
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        fresh = directory / (STATE_NAME + ".new")
        torch.save(values, fresh)
        fresh.replace(directory / STATE_NAME)

    @classmethod
    def load(cls, directory: Path, model: SpanModel, optimizer: torch.optim.Optimizer) -> "_State":
        """Read the state of a run into its model and optimiser; a fresh one where there is none."""
        state = cls()
        path = directory / STATE_NAME
        if not path.exists():
            logger.warning("%s: nothing to resume, the run starts anew", directory)
            return state
        values = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(values["model"])
        optimizer.load_state_dict(values["optimizer"])
        torch.set_rng_state(values["random"])
        if values["cuda_random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(values["cuda_random"])
        for name, value in values["counters"].items():
            setattr(state, name, value)
        state._began_words = state.words
        return state


def load_corpus(settings: Settings, checkpoint: Checkpoint) -> Corpus:
    """Read the run's rows as pieces."""
    path = Path(settings.data.train)
    rows = read_rows(path, licenses=settings.data.licenses)
    max_words = checkpoint.model.config.max_len
    corpus = build_corpus(rows, checkpoint.pieces, max_words=max_words)
    logger.info("%s: %d words, %d sources", path, corpus.words, len(corpus.rows))
    return corpus


def measure(checkpoint: Checkpoint, settings: Settings) -> Dev:
    """Measure F1 on the run's dev files at every threshold of a grid."""
    device = next(checkpoint.model.eval().parameters()).device
    predict = TorchPredictor(checkpoint, threshold=_THRESHOLDS[0])
    judgements = []
    for path in list_datasets(settings.data.dev):
        dataset = read_dataset(path).first(settings.data.dev_sentences)
        with _autocast(settings, device):
            judgements.append(judge(predict, dataset))
    curve = mean_f1_by_threshold(judgements, _THRESHOLDS)
    best = int(np.argmax(curve))
    at_best = [judgement.scores(_THRESHOLDS[best]) for judgement in judgements]
    return Dev(
        threshold=_THRESHOLDS[best],
        f1=average_f1(at_best),
        f1_at_half=mean_f1_by_threshold(judgements, [0.5])[0],
        by_file={scores.name: scores.total.f1 for scores in at_best},
    )


def _record(settings: Settings, checkpoint: Checkpoint, state: _State, dev: Dev) -> None:
    """Log a measurement, and keep the checkpoint where it is the best so far."""
    line = {
        "step": state.step,
        "examples": state.examples,
        "seconds": round(state.total_seconds()),
        "loss": round(state.loss, 4),
        "threshold": dev.threshold,
        "f1": round(100 * dev.f1, 2),
        "f1_at_half": round(100 * dev.f1_at_half, 2),
        "by_file": {name: round(100 * f1, 1) for name, f1 in dev.by_file.items()},
    }
    settings.directory.mkdir(parents=True, exist_ok=True)
    with (settings.directory / "dev.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    tqdm.write(json.dumps(line))
    if dev.f1 > state.best_f1:
        state.best_f1 = dev.f1
        save_checkpoint(settings.directory / "best", checkpoint)
        _write_card(settings.directory / "best", settings, state, dev)


def _write_card(directory: Path, settings: Settings, state: _State, dev: Dev | None) -> None:
    """Write what the checkpoint's bundle will say of its origin."""
    card: dict[str, Any] = {
        "encoder": settings.encoder or settings.start,
        "data": {
            "file": Path(settings.data.train).name,
            "licenses": list(settings.data.licenses),
            "mixture": dict(settings.data.mixture),
        },
        "steps": state.step,
        "examples": state.examples,
        "words": state.words,
        "seconds": round(state.total_seconds()),
        "threshold": dev.threshold if dev else None,
        "dev": {name: round(100 * f1, 2) for name, f1 in dev.by_file.items()} if dev else {},
    }
    (directory / CARD_NAME).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _start(settings: Settings) -> Checkpoint:
    if settings.start:
        return load_checkpoint(settings.start)
    return start_model(settings.encoder, dict(settings.model))


def _device(settings: Settings) -> torch.device:
    if settings.device != "auto":
        return torch.device(settings.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _autocast(settings: Settings, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision on CUDA, plain fp32 on the CPU unless the run says otherwise."""
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)

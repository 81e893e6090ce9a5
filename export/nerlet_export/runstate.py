"""Where a training run stands, how it is written and read, and how it is asked to stop."""

import logging
import math
import signal
import threading
import time
from pathlib import Path
from typing import Self

import torch

from nerlet_export.data import Batch
from nerlet_export.model import SpanModel

logger = logging.getLogger(__name__)

STATE_NAME = "state.pt"


class RunState:
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
    def load(
        cls, directory: Path, model: SpanModel, optimizer: torch.optim.Optimizer
    ) -> "RunState":
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


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a request, so that a run stops between two steps.

    Attributes:
        is_requested: Whether a signal came.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.is_requested = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others cannot handle signals
            self._before = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        else:
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.is_requested = True

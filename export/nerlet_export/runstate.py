"""Where a training run stands, how it is written and read, and how it is asked to stop."""

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol, Self

import torch

from nerlet.errors import InputError
from nerlet_export.data import Batch
from nerlet_export.settings import Data, Settings

logger = logging.getLogger(__name__)

STATE_NAME = "state.pt"


class Stateful(Protocol):
    """What a state is taken of: a module, an optimiser."""

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state_dict: dict[str, Any], /) -> object: ...  # noqa: D102


class RunState:
    """Where a run stands: step, examples and words seen, smoothed loss, best F1, seconds spent.

    Attributes:
        best_f1: On dev, so far.
        stale: Measurements on dev since that one.
    """

    def __init__(self) -> None:
        self.step = 0
        self.examples = 0
        self.words = 0
        self.loss = math.nan
        self.best_f1 = -1.0
        self.stale = 0
        self.seconds = 0.0
        self._began = time.monotonic()
        self._began_words = 0

    def count(self, batch: Batch, loss: float) -> None:
        """Count one step."""
        self.step += 1
        self.examples += len(batch.lengths)
        self.words += int(batch.lengths.sum())
        self.loss = loss if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * loss

    def judge(self, f1: float) -> bool:
        """Take a measurement on dev in; whether it is the best so far."""
        is_best = f1 > self.best_f1
        self.best_f1 = max(f1, self.best_f1)
        self.stale = 0 if is_best else self.stale + 1
        return is_best

    def is_done(self, settings: Settings) -> bool:
        """Whether all steps are done, or dev has not improved for as long as the run waits."""
        is_stalled = 0 < settings.patience <= self.stale
        return self.step >= settings.optimization.steps or is_stalled

    def words_per_second(self) -> float:
        """Words a second since the run began or resumed."""
        return (self.words - self._began_words) / max(time.monotonic() - self._began, 1e-9)

    def total_seconds(self) -> float:
        """Seconds spent, over all parts of the run."""
        return self.seconds + time.monotonic() - self._began

    def save(self, settings: Settings, parts: Mapping[str, Stateful]) -> None:
        """Write everything that an exact resume needs; the old state stays until it is written."""
        directory = settings.directory
        directory.mkdir(parents=True, exist_ok=True)
        values = {
            "counters": {
                "step": self.step,
                "examples": self.examples,
                "words": self.words,
                "loss": self.loss,
                "best_f1": self.best_f1,
                "stale": self.stale,
                "seconds": self.total_seconds(),
            },
            "settings": _plain(settings),
            **{name: part.state_dict() for name, part in parts.items()},
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        fresh = directory / (STATE_NAME + ".new")
        torch.save(values, fresh)
        fresh.replace(directory / STATE_NAME)

    @classmethod
    def load(cls, settings: Settings, parts: Mapping[str, Stateful]) -> "RunState":
        """Read the state of a run into its parts; a fresh one where there is none.

        Settings may differ from those that it was written under, as when a run is extended: a
        line in the log then says which, since the resumed run is not the unbroken one.

        Raises:
            InputError: The state is damaged, lacks a part, or is of another model.
        """
        state = cls()
        path = settings.directory / STATE_NAME
        if not path.exists():
            logger.warning("%s: nothing to resume, the run starts anew", settings.directory)
            return state
        values = _read(path, {*parts, "counters", "random", "cuda_random"})
        try:
            for name, part in parts.items():
                part.load_state_dict(values[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: not the state of a run of this model ({error}); give another directory"
            ) from error
        torch.set_rng_state(values["random"])
        if values["cuda_random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(values["cuda_random"])
        for name, value in values["counters"].items():
            setattr(state, name, value)
        state._began_words = state.words
        _log_changes(settings, values.get("settings"))
        return state


def _read(path: Path, parts: set[str]) -> dict[str, Any]:
    """Read a state, which must have all parts; those of older versions had fewer."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        missing = sorted(parts - values.keys())
    except (UnpicklingError, EOFError, RuntimeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not the state of a run ({error}); give another directory"
        ) from error
    if missing:
        raise InputError(
            f"{path}: expected a state with {', '.join(sorted(parts))}, found none of "
            f"{', '.join(missing)}; another version wrote it: resume with that one, or begin anew "
            "in another directory"
        )
    return dict(values)


def _plain(settings: Settings) -> dict[str, Any]:
    """Settings as JSON has them, by "key" or "table.key"."""
    plain: dict[str, Any] = {}
    for name, value in json.loads(json.dumps(asdict(settings), default=str)).items():
        plain |= (
            {f"{name}.{k}": v for k, v in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return plain


def _log_changes(settings: Settings, before: dict[str, Any] | None) -> None:
    """Log which settings are not those of the state.

    Older states do not say theirs, or not those that came later, which then had their defaults.
    """
    after = _plain(settings)
    defaults = _plain(Settings(settings.directory, Data(""), start="any"))
    before = after if before is None else defaults | before
    keys = sorted(key for key in before.keys() | after if before.get(key) != after.get(key))
    if keys:
        logger.warning(
            "%s: resumed under other settings (%s), so not as one unbroken run",
            settings.directory,
            ", ".join(keys),
        )


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

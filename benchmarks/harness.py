"""Time variants side by side and say on what machine: shared by the benchmarks."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from instruction_sets import NATIVE, current_level, hidden_sets, read_processor

# The instruction sets that decide how fast int8 and float kernels run.
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp")


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one variant in milliseconds."""

    median_ms: float
    p95_ms: float
    rounds: int


def time_alternating(
    variants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 20,
    warmup: int = 1,
    lead: int = 0,
    pause_s: float = 0.0,
) -> dict[str, Timing]:
    """Time each variant once a round, round after round, so that a busy machine slows all alike.

    Args:
        variants: Name -> what to time.
        rounds: Timed calls of each.
        warmup: Calls of each beforehand, not timed.
        lead: Calls of the same variant just before each timed one, not timed: they wake its
            threads.
        pause_s: Sleep before them, for the threads of the variant before: some wait awake for
            more work long after a call, which slows whoever comes next.
    """
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for round_number in range(-warmup, rounds):
        for name, call in variants.items():
            time.sleep(pause_s)
            for _ in range(lead):
                call()
            begin = time.perf_counter_ns()
            call()
            elapsed_ms = (time.perf_counter_ns() - begin) / 1e6
            if round_number >= 0:
                taken[name].append(elapsed_ms)
    return {
        name: Timing(float(np.median(times)), float(np.percentile(times, 95)), rounds)
        for name, times in taken.items()
    }


def machine_card() -> dict[str, object]:
    """Processor, cores, versions and commit; nothing that names the machine.

    The instruction sets are those that this process sees; `level` says by what name, if not all.
    """
    model, flags = read_processor()
    level = current_level()
    seen = flags - hidden_sets(level)
    return {
        "cpu": model,
        **({} if level == NATIVE else {"level": level}),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in seen],
        "cores": len(os.sched_getaffinity(0)),
        "os": platform.system(),
        "python": platform.python_version(),
        **{name: _find_version(name) for name in ("numpy", "onnxruntime", "tokenizers")},
        "commit": _find_commit(),
    }


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a header, columns aligned: text left, numbers right."""
    cells = [[_to_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_number = [isinstance(value, int | float) for value in rows[0]]
    for line in cells:
        aligned = zip(line, widths, is_number, strict=True)
        print("  ".join(cell.rjust(w) if right else cell.ljust(w) for cell, w, right in aligned))


def print_result(benchmark: str, results: Sequence[Mapping[str, object]]) -> None:
    """Print the benchmark's last line: one JSON document with the machine and all figures."""
    document = {"benchmark": benchmark, "machine": machine_card(), "results": results}
    print(json.dumps(document, ensure_ascii=False))


def timing_fields(timing: Timing) -> dict[str, object]:
    """A timing as fields of a result, rounded to what means something."""
    return {key: round(value, 4) for key, value in asdict(timing).items()}


def _to_cell(value: object) -> str:
    """A value as text, floats with three significant digits."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _find_commit() -> str | None:
    """The commit that is checked out; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

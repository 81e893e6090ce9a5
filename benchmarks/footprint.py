"""What does the default model cost: import, load, first text, memory, disk?

Timed, each in a fresh process, processes alternating: `import nerlet` beside the import of its
three libraries alone (numpy, tokenizers, onnxruntime), then `nerlet.load()`, then the first
`predict_entities`. Not timed: the start of the interpreter. Memory is the process's peak resident
size at the end. Disk: the bundle's files, and what site-packages holds of nerlet
and its requirements (of an editable install, the requirements alone).
Checked: the first answer has the entities that the README shows.

Run: python benchmarks/footprint.py [--rounds 20] [--model DIR]
"""

import argparse
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from harness import print_result, print_table
from nerlet.bundle import default_bundle_path

TEXT = "Bill Gates founded Microsoft on April 4, 1975."
LABELS = ["person", "organization", "date"]
EXPECTED = ["Bill Gates", "Microsoft", "April 4, 1975"]

_LIBRARIES = """
import json, time
begin = time.perf_counter()
import numpy, onnxruntime, tokenizers
print(json.dumps({"import_libraries_s": time.perf_counter() - begin}))
"""

_NERLET = """
import json, resource, sys, time
begin = time.perf_counter()
import nerlet
imported = time.perf_counter()
model = nerlet.load(sys.argv[1])
loaded = time.perf_counter()
entities = model.predict_entities(sys.argv[2], json.loads(sys.argv[3]))
answered = time.perf_counter()
print(json.dumps({
    "import_s": imported - begin,
    "load_s": loaded - imported,
    "first_answer_s": answered - loaded,
    "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    "entities": [entity["text"] for entity in entities],
}))
"""


def main() -> None:
    """Measure in fresh processes; print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="fresh processes of each kind")
    parser.add_argument("--model", type=Path, default=default_bundle_path(), help="a bundle")
    options = parser.parse_args()
    arguments = [str(options.model), TEXT, json.dumps(LABELS)]
    runs: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        figures = _run(_LIBRARIES, []) | _run(_NERLET, arguments)
        if figures.pop("entities") != EXPECTED:
            raise SystemExit(f"the first answer is not {EXPECTED}; the figures would mean nothing")
        for name, value in figures.items():
            runs.setdefault(name, []).append(float(value))  # type: ignore[arg-type]
    results = [
        {
            "figure": name,
            "median": round(float(np.median(values)), 3),
            "p95": round(float(np.percentile(values, 95)), 3),
            "rounds": len(values),
        }
        for name, values in runs.items()
    ]
    for name, size in (("bundle_mb", _bundle_mb(options.model)), ("install_mb", _install_mb())):
        results.append({"figure": name, "median": size, "p95": size, "rounds": 1})
    columns = ("figure", "median", "p95", "rounds")
    print_table(columns, [[result[name] for name in columns] for result in results])
    print_result("footprint", results)


def _run(program: str, arguments: list[str]) -> dict[str, object]:
    """Run a program in a fresh interpreter; what it prints, read as JSON."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, object] = json.loads(done.stdout)
    return figures


def _bundle_mb(path: Path) -> float:
    return round(sum(file.stat().st_size for file in path.iterdir() if file.is_file()) / 1e6, 1)


def _install_mb() -> float:
    """Size of nerlet's requirements and of what they require, as installed here."""
    seen: set[str] = set()
    waiting = ["nerlet"]
    total = 0
    while waiting:
        name = waiting.pop()
        if name.lower() in seen:
            continue
        seen.add(name.lower())
        try:
            found = distribution(name)
        except PackageNotFoundError:  # required on other systems only
            continue
        sizes = [Path(str(found.locate_file(file))) for file in found.files or ()]
        total += sum(path.stat().st_size for path in sizes if path.is_file())
        required = [item for item in found.requires or () if "extra ==" not in item]
        waiting += map(_name_of, required)
    return round(total / 1e6, 1)


def _name_of(requirement: str) -> str:
    """The distribution's name in a requirement such as `numpy>=1.26`."""
    end = next((i for i, c in enumerate(requirement) if c not in "-_." and not c.isalnum()), None)
    return requirement[:end]


if __name__ == "__main__":
    main()

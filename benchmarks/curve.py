"""F1 against compute: the measurements that runs took of themselves on dev, one after the other.

A run's folder holds them in `dev.jsonl`; each run here goes on where the one before it ended. The
two parts of the default model measured themselves on 100 and 300 sentences a file of dev/zero.

Run: cd benchmarks/results && python ../curve.py run-small.jsonl run-small-2.jsonl
"""

import argparse
import json
from pathlib import Path

from charts import HINT, can_draw, draw_lines
from harness import print_table

_RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Print the curve and draw it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="+", help="dev.jsonl of each run, in order")
    options = parser.parse_args()
    examples, minutes = 0, 0.0
    curves: dict[str, list[tuple[float, float]]] = {}
    rows = []
    for log in options.logs:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        name = log.stem.removeprefix("run-")
        for line in lines:
            at = (minutes + line["seconds"] / 60, float(line["f1"]))
            curves.setdefault(name, []).append(at)
            rows.append((name, line["step"], examples + line["examples"], *at, line["loss"]))
        examples += lines[-1]["examples"]
        minutes += lines[-1]["seconds"] / 60
    print_table(("run", "step", "examples so far", "minutes so far", "dev F1", "loss"), rows)
    if can_draw():
        title = "The default model on dev/zero while it was trained, one core"
        draw_lines(_RESULTS / "compute.svg", title, "minutes of training", curves)
    else:
        print(HINT)


if __name__ == "__main__":
    main()

"""The README's table of speed is what the committed measurements say."""

import json
from pathlib import Path

import speed

ROOT = Path(__file__).parents[2]


def read(name):
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def test_the_readme_has_the_committed_figures():
    lines = speed.make_readme_table(read("latency.json"), read("throughput.json"))
    assert len(lines) > 8
    assert "\n".join(lines) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_goes_between_its_marks(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{speed._BEGIN}old\n{speed._END}after\n", encoding="utf-8")
    speed.put_into_readme(path, ["new", "lines"])
    expected = f"before\n{speed._BEGIN}new\nlines\n{speed._END}after\n"
    assert path.read_text(encoding="utf-8") == expected

"""The packages: sdist, the wheel built from it, and a fresh install that works offline."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow  # installs the runtime's requirements

SENTENCE = "Bill Gates founded Microsoft on April 4, 1975."
LABELS = ["-l", "person", "-l", "organization", "-l", "date"]


def run(*command: object, **options: Any) -> str:
    """Run a command that must succeed; what it printed."""
    parts = [str(part) for part in command]
    done = subprocess.run(parts, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("packages")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (sdist,) = folder.glob("nerlet-*.tar.gz")
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, sdist)
    (path,) = folder.glob("nerlet-*.whl")
    return path


def test_the_default_bundle_and_both_packages_travel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = ["model.onnx", "nerlet.json", "gliner_config.json", "tokenizer.json"]
    assert {f"nerlet/models/small/{name}" for name in needed} <= names
    assert {"nerlet/py.typed", "nerlet/select.onnx", "nerlet_export/py.typed"} <= names
    assert "nerlet_export/train.py" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    assert not [name for name in names if "checkpoint/" in name]


def test_a_fresh_install_finds_the_entities_of_the_readme_offline(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    constraints = ("-c", ROOT / "constraints.txt")
    run(scripts / "python", "-m", "pip", "install", "--quiet", *constraints, wheel)
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    options: dict[str, Any] = {"cwd": tmp_path, "env": offline}
    printed = run(scripts / "nerlet", "extract", *LABELS, "--format", "table", SENTENCE, **options)
    found = [line.split("  ") for line in printed.splitlines()[1:]]
    entities = [tuple(part.strip() for part in line if part.strip())[:2] for line in found]
    assert entities == [
        ("Bill Gates", "person"),
        ("Microsoft", "organization"),
        ("April 4, 1975", "date"),
    ]
    assert "torch" not in run(scripts / "python", "-m", "pip", "list")

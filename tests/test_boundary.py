"""What `import nerlet` brings in, what the package requires, and which names are public."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import nerlet

ROOT = Path(__file__).parent.parent
HEAVY = ["torch", "transformers", "optimum", "onnx", "gliner", "huggingface_hub", "nerlet_export"]

_PROBE = """
import json, sys
import nerlet
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


_LOAD = """
import sys
import nerlet
nerlet.load(sys.argv[1], threads=2).predict_entities("Ada", "person")
print(sys.float_info.min / 2 > 0)
"""


def probe_import() -> list[str]:
    result = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, check=True)
    modules: list[str] = json.loads(result.stdout)
    return modules


def test_import_brings_in_nothing_heavy():
    modules = probe_import()
    assert {"nerlet", "onnxruntime", "tokenizers"} <= set(modules)
    assert [name for name in HEAVY if name in modules] == []


def test_a_model_leaves_the_callers_arithmetic_alone(toy_path):
    command = [sys.executable, "-c", _LOAD, str(toy_path)]
    result = subprocess.run(command, capture_output=True, check=True, text=True)
    assert (result.stdout, result.stderr) == ("True\n", "")


def test_required_distributions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [requirement.split(">")[0] for requirement in project["dependencies"]]
    assert names == ["numpy", "onnxruntime", "tokenizers", "tqdm"]


def test_public_names():
    assert nerlet.__all__ == [
        "BundleError",
        "Entity",
        "GLiNER",
        "GraphError",
        "InputError",
        "NerletError",
        "load",
    ]
    assert all(hasattr(nerlet, name) for name in nerlet.__all__)

"""A process at a level does not see the instruction sets that the level hides."""

import subprocess
import sys

import pytest
from numpy._core._multiarray_umath import __cpu_features__ as found  # type: ignore[import-not-found]

from harness import machine_card
from instruction_sets import LEVELS, NATIVE, explain_absence, make_environment, run_at

# what numpy finds by cpuid, and what the machine card says
REPORT = """
import json
from numpy._core._multiarray_umath import __cpu_features__ as found
from harness import machine_card
print("not the last line")
print(json.dumps([[name for name, has in found.items() if has], machine_card()]))
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "benchmarks")
    path = tmp_path / "report.py"
    path.write_text(REPORT)
    return [str(path)]


@pytest.mark.parametrize("level", [level for level in LEVELS if level != NATIVE])
def test_a_child_sees_what_its_level_has_or_the_error_says_what_is_missing(level, script):
    absence = explain_absence(level)
    if absence:
        with pytest.raises(SystemExit, match="cannot run at the level") as error:
            run_at(level, script)
        assert absence in str(error.value)
        return
    features, card = run_at(level, script)
    assert "AVX2" in features
    assert ("AVX512F" in features) == level.startswith("avx512")
    assert ("AVX512VNNI" in features) == (level == "avx512_vnni")
    assert card["level"] == level
    assert level in card["instruction_sets"]
    assert "amx_int8" not in card["instruction_sets"]
    assert ("avx512f" in card["instruction_sets"]) == level.startswith("avx512")


def test_natively_nothing_is_hidden(script):
    assert run_at(NATIVE, script) == [[name for name, has in found.items() if has], machine_card()]


def test_a_real_fault_still_ends_the_process():
    if explain_absence("avx2"):
        with pytest.raises(SystemExit, match="cannot run at the level"):
            make_environment("avx2")
        return
    command = [sys.executable, "-c", "import ctypes; ctypes.string_at(0)"]
    done = subprocess.run(command, env=make_environment("avx2"))
    assert done.returncode == -11


def test_without_a_compiler_the_error_names_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    explain = [explain_absence(level) for level in LEVELS]
    assert explain[-1] == ""
    assert all("`cc`" in why or "Linux" in why for why in explain[:-1])

"""Run a process that does not see all instruction sets of its processor, by `hide_cpuid.c`.

What is measured so is THIS processor with instructions hidden, not an older one: its clock, caches
and memory are its own. It shows which kernels are chosen, whether they saturate, and how fast they
are beside each other. x86-64 Linux only, a processor with CPUID faulting (`cpuid_fault` in
/proc/cpuinfo) and a C compiler, `cc`; names of instruction sets are those of /proc/cpuinfo.
"""

import atexit
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

NATIVE = "native"
# Level -> what it has of `_BITS`; the rest of them is hidden.
_AVX512F = ("avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl")
_AVX512_VNNI = ("avx512ifma", "avx512vbmi", "avx512_vbmi2", "avx512_bitalg", "avx512_vpopcntdq")
_LEVELS: dict[str, tuple[str, ...]] = {
    "avx2": (),  # Haswell, Zen to Zen 3
    "avx_vnni": ("avx_vnni",),  # Alder Lake
    "avx512f": _AVX512F,  # Skylake-X
    "avx512_vnni": (*_AVX512F, *_AVX512_VNNI, "avx512_vnni"),  # Ice Lake, nearly Zen 4: no AMX
}
LEVELS = (*_LEVELS, NATIVE)
# Instruction set -> (register, bit); Intel's manual, volume 2A, CPUID.
_REGISTERS = ("7.0 ebx", "7.0 ecx", "7.0 edx", "7.1 eax", "7.1 edx")  # as hide_cpuid.c reads them
_BITS = {
    "avx512f": ("7.0 ebx", 16),
    "avx512dq": ("7.0 ebx", 17),
    "avx512ifma": ("7.0 ebx", 21),
    "avx512cd": ("7.0 ebx", 28),
    "avx512bw": ("7.0 ebx", 30),
    "avx512vl": ("7.0 ebx", 31),
    "avx512vbmi": ("7.0 ecx", 1),
    "avx512_vbmi2": ("7.0 ecx", 6),
    "avx512_vnni": ("7.0 ecx", 11),
    "avx512_bitalg": ("7.0 ecx", 12),
    "avx512_vpopcntdq": ("7.0 ecx", 14),
    "avx512_vp2intersect": ("7.0 edx", 8),
    "amx_bf16": ("7.0 edx", 22),
    "avx512_fp16": ("7.0 edx", 23),
    "amx_tile": ("7.0 edx", 24),
    "amx_int8": ("7.0 edx", 25),
    "avx_vnni": ("7.1 eax", 4),
    "avx512_bf16": ("7.1 eax", 5),
    "amx_fp16": ("7.1 eax", 21),
    "avx_ifma": ("7.1 eax", 23),
    "avx_vnni_int8": ("7.1 edx", 4),
    "avx_ne_convert": ("7.1 edx", 5),
    "amx_complex": ("7.1 edx", 8),
    "avx_vnni_int16": ("7.1 edx", 10),
    "avx10": ("7.1 edx", 19),
}
_LEVEL = "HIDE_CPUID_LEVEL"  # tells a process its level
_SOURCE = Path(__file__).parent / "hide_cpuid.c"


def read_processor() -> tuple[str, set[str]]:
    """The processor's name and instruction sets, hidden ones too, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", platform.machine()), set(flags.split())


def current_level() -> str:
    """The level of this process."""
    return os.environ.get(_LEVEL, NATIVE)


def hidden_sets(level: str) -> set[str]:
    """The instruction sets that a level hides."""
    return set() if level == NATIVE else _BITS.keys() - set(_LEVELS[level])


def explain_absence(level: str) -> str:
    """Why no process can be run at a level here; "" where one can."""
    if level == NATIVE:
        return ""
    if absence := _explain_no_library():
        return absence
    return "" if level in read_processor()[1] else f"this processor has no {level}"


def make_environment(level: str) -> dict[str, str]:
    """The environment of a child process at a level.

    Args:
        level: One of `LEVELS`.

    Raises:
        SystemExit: It cannot be had here; says why.
    """
    if absence := explain_absence(level):
        raise SystemExit(f"cannot run at the level {level}: {absence}")
    if level == NATIVE:
        return dict(os.environ)
    return {**os.environ, **_hide(hidden_sets(level)), _LEVEL: level}


def run_at(level: str, arguments: Sequence[str]) -> Any:  # noqa: ANN401  (JSON)
    """Run a script of ours at a level.

    Args:
        level: One of `LEVELS`.
        arguments: The script and its arguments.

    Returns:
        What its last line holds, as JSON.

    Raises:
        SystemExit: The level cannot be had here.
        subprocess.CalledProcessError: The script failed.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        env=make_environment(level),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _hide(names: set[str]) -> Mapping[str, str]:
    """Variables that preload the library and tell it what to hide."""
    masks = dict.fromkeys(_REGISTERS, 0)
    for name in names:
        register, bit = _BITS[name]
        masks[register] |= 1 << bit
    others = os.environ.get("LD_PRELOAD", "").split()
    return {
        "LD_PRELOAD": " ".join([str(_build()), *others]),
        "HIDE_CPUID": ":".join(f"{mask:x}" for mask in masks.values()),
    }


def _explain_no_library() -> str:
    """Why nothing can be hidden here, found by trying it; "" where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"hiding needs Linux on x86-64, not {sys.platform} on {platform.machine()}"
    if shutil.which("cc") is None:
        return "hiding needs a C compiler, and there is no `cc`"
    try:
        environment = {**os.environ, **_hide(set())}
    except subprocess.CalledProcessError as error:
        return f"`cc` fails: {error.stderr}"
    command = [sys.executable, "-I", "-S", "-c", ""]
    # The loader says that it cannot load the library, and goes on without.
    return subprocess.run(command, env=environment, capture_output=True, text=True).stderr.strip()


@cache
def _build() -> Path:
    """The library, in a folder that goes when this process ends.

    Raises:
        subprocess.CalledProcessError: The compiler failed; has what it said.
    """
    folder = Path(tempfile.mkdtemp(prefix="hide-cpuid-"))
    atexit.register(shutil.rmtree, folder)
    library = folder / _SOURCE.with_suffix(".so").name
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library

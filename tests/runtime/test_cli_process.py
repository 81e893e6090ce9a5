"""The command in a process of its own: pipes, signals, bytes; with a model that needs no bundle."""

import json
import os
import signal
import subprocess
import sys

import pytest

# The real command, its model replaced before it starts.
PROGRAM = """
import sys
import nerlet.model
from nerlet.cli import main
from tests.runtime.fake_model import FakeModel
nerlet.model.load = lambda path, graph: FakeModel()
sys.exit(main())
"""


@pytest.fixture
def start(request):
    """Start `nerlet extract -l x` with these arguments, ends piped."""
    started: list[subprocess.Popen[bytes]] = []

    def start_command(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "extract", "-l", "x", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=request.config.rootpath,
            env={**os.environ, **environment},
            # A parent in the background may ignore Ctrl-C, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start_command
    for process in started:
        process.kill()
        process.wait()
        for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
            stream.close()


def test_each_line_of_stdin_is_answered_before_the_next_is_there(start):
    process = start("--file", "-")
    for text in ("Ada", "Zoë"):
        process.stdin.write(f"{text}\n".encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["text"] == text
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")


def test_reader_that_goes_away_is_no_error(start):
    process = start("--file", "-")
    process.stdin.write(b"Ada\n")
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"Ada\n" * 1000)
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 141


def test_interrupt_leaves_no_traceback(start):
    process = start("--file", "-")
    process.stdin.write(b"Ada\n")
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert process.stderr.read() == b""


def test_json_is_utf8_whatever_the_locale_says(start):
    out, err = start("Zoë 東京", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii").communicate()
    assert err == b""
    assert json.loads(out.decode("utf-8"))["text"] == "Zoë 東京"


def test_argument_that_is_no_utf8_is_one_line(start):
    process = start(b"na\xefve")
    out, err = process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert (
        err
        == b"nerlet: argument TEXT: expected UTF-8, got 'na\\udcefve' (see nerlet extract --help)\n"
    )


def test_module_is_the_command():
    command = [sys.executable, "-m", "nerlet", "--version"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert done.stdout.startswith("nerlet ")


def test_help_needs_no_torch_and_no_progress_bar():
    program = (
        "import sys\nfrom nerlet.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'tqdm'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"

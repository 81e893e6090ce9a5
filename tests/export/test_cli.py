"""Bad input of `nerlet-export`: exit 2 and one line that names it, never a traceback."""

import json
import shutil
from pathlib import Path

import pytest

from nerlet_export.checkpoint import save_checkpoint
from nerlet_export.cli import main
from nerlet_export.tiny import make_checkpoint

RUNS = {
    "[run": "not a readable TOML",
    b"\xff": "not a readable TOML",
    "run = 3": "run is 3, expected a table",
    "model = []": "model is [], expected a table",
    "[odd]": "unknown table odd",
    "[run]\ndirectory = 3": "[run]: directory is 3, expected a path",
    '[run]\nencoder = "x"\nstart = "x"': "[run]: give either",
    "[model]\nmax_width = 3": "[run]: `start` has a model already, so [model]",
    '[run]\nencoder = "x"': "[data]: train is missing",
    "[run]\ndev_every = 0": "[run]: dev_every is 0, expected a whole number of at least 1",
    "[run]\nsave_every = true": "[run]: save_every is True, expected a whole number",
    '[run]\ndevice = "gpu"': "[run]: device is 'gpu', expected auto, cpu",
    '[run]\nprecision = "fp16"': "[run]: precision is 'fp16', expected auto, fp32 or bf16",
    '[optimization]\nsteps = "six"': "[optimization]: steps is 'six', expected a whole number",
    "[optimization]\nsteps = -1": "[optimization]: steps is -1, expected a whole number of at",
    "[optimization]\nhead_lr = nan": "[optimization]: head_lr is nan, expected a number",
    "[optimization]\nwarm_up = 2": "[optimization]: warm_up is 2, expected a number from 0 to 1",
    "[sampling]\nmax_types = 0": "[sampling]: max_types is 0",
    '[data]\nlicenses = "permissive"': "[data]: licenses is 'permissive', expected a list",
    "[data]\nlicenses = [1]": "[data]: licenses is [1], expected a list, each item a text",
    '[data]\nnegatives = "some"': "[data]: negatives is 'some', expected one of",
    "[data]\nmixture = {a = -1}": "[data]: mixture is {'a': -1}, expected weights",
    '[data]\nmixture = {a = "x"}': "[data]: mixture is {'a': 'x'}, expected a table",
    "[model]\nmax_widht = 3": "[model]: unknown key max_widht; known are dropout, ",
    "[model]\nvocab_size = 3": "[model]: unknown key vocab_size",
    '[model]\nmax_width = "12"': "[model]: max_width is '12', expected a whole number",
    '[model]\nspan_mode = "odd"': "[model]: span_mode is 'odd'",
    "[model]\nencoder_dropout = 2": "[model]: encoder_dropout is 2, expected",
    "[data]\ntrain = 'nowhere.jsonl'": "nowhere.jsonl: expected a file",
}
BASE = {"run": 'start = "start"', "data": 'train = "train.jsonl"'}


def complete(text: str) -> str:
    """Add what a run needs and the text does not say."""
    for table, line in BASE.items():
        key = line.split(" ", maxsplit=1)[0]
        if f"[{table}" not in text and f"{table} =" not in text:
            text = f"{text}\n[{table}]\n{line}"
        elif f"[{table}]\n" in text and f"{key} =" not in text and "encoder =" not in text:
            text = text.replace(f"[{table}]\n", f"[{table}]\n{line}\n")
    return text


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_checkpoint(folder, make_checkpoint("bert"))
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a checkpoint in `start` and a training file."""
    shutil.copytree(saved, tmp_path / "start")
    (tmp_path / "train.jsonl").write_text('{"tokenized_text": ["a"], "ner": []}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NERLET_DATA", raising=False)
    return tmp_path


def problem(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command ends with."""
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("nerlet-export: ")] == lines[-1:]
    return lines[-1]


@pytest.mark.parametrize("text", RUNS)
def test_a_run_file(folder, capsys, text):
    path = folder / "run.toml"
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(complete(text) if text != '[run]\nencoder = "x"' else text, "utf-8")
    assert RUNS[text] in problem(capsys, "train", "run.toml")
    assert not (folder / "runs").exists()


def test_no_run_file(folder, capsys):
    assert "none.toml: no such run file" in problem(capsys, "train", "none.toml")
    assert "not a readable TOML" in problem(capsys, "train", str(folder))


@pytest.mark.parametrize("row", ["3", "{", '{"ner": []}', '{"tokenized_text": "a", "ner": []}'])
def test_a_row(folder, capsys, row):
    (folder / "run.toml").write_text(complete(""), encoding="utf-8")
    with (folder / "train.jsonl").open("a", encoding="utf-8") as rows:
        rows.write(f"\n{row}")
    assert "train.jsonl, line 2: " in problem(capsys, "train", "run.toml")


@pytest.mark.parametrize("encoder", ["package:no/x", "package:no.such/x", "damaged"])
def test_an_encoder(folder, capsys, encoder):
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (folder / "damaged" / "model.safetensors").write_bytes(b"x" * 20)
    text = f'[run]\nencoder = "{encoder}"\n[data]\ntrain = "train.jsonl"'
    (folder / "run.toml").write_text(text, encoding="utf-8")
    line = problem(capsys, "train", "run.toml")
    assert "encoder: " in line
    assert repr(encoder) in line


CONFIGS: dict[str, tuple[object, str]] = {
    "max_width": ("12", "max_width is '12', expected a whole number of at least 1"),
    "max_len": (0, "max_len is 0"),
    "hidden_size": ("x", "hidden_size is 'x', expected a whole number"),
    "dropout": (True, "dropout is True, expected a number from 0 to 1"),
    "ent_token": (5, "ent_token is 5, expected a text"),
    "nerlet": (3, "nerlet is 3, expected an object"),
    "encoder_config": (3, "encoder is 3, expected a table"),
}


@pytest.mark.parametrize("key", CONFIGS)
def test_a_config(folder, capsys, key):
    value, message = CONFIGS[key]
    edit(folder / "start" / "gliner_config.json", {key: value})
    found = problem(capsys, "convert", "start", "bundle")
    assert "gliner_config.json: " in found
    assert message in found


@pytest.mark.parametrize(
    "change", [{"model_type": "no-such-encoder"}, {"hidden_size": "x"}, {"num_attention_heads": 0}]
)
def test_an_encoder_config(folder, capsys, change):
    path = folder / "start" / "gliner_config.json"
    encoder = json.loads(path.read_text(encoding="utf-8"))["encoder_config"]
    edit(path, {"encoder_config": encoder | change})
    assert "encoder_config describes no encoder" in problem(capsys, "convert", "start", "bundle")


def edit(path: Path, changes: dict[str, object]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values | changes), encoding="utf-8")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "training.json"])
@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
def test_a_damaged_file(folder, capsys, name, content):
    (folder / "start" / name).write_bytes(content)
    assert f"{name}: expected a" in problem(capsys, "convert", "start", "bundle")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", ["convert", "shrink"])
def test_a_file_where_the_directory_should_be(capsys, command):
    assert "train.jsonl" in problem(capsys, command, "start", "train.jsonl")


def test_a_run_directory_that_is_a_file(folder, capsys):
    text = '[run]\nstart = "start"\ndirectory = "train.jsonl"\n[optimization]\nsteps = 1\n'
    (folder / "run.toml").write_text(complete(text), encoding="utf-8")
    assert "train.jsonl: expected a directory" in problem(capsys, "train", "run.toml")


def test_rows_of_no_licence_asked_for(folder, capsys):
    (folder / "run.toml").write_text(complete(""), encoding="utf-8")
    expected = "train.jsonl: no rows of the licence classes ['permissive']"
    assert expected in problem(capsys, "train", "run.toml")


@pytest.mark.parametrize("arguments", [[], ["fly"], ["convert", "a", "b", "--precision", "fp16"]])
def test_a_command_line(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nerlet-export: ")


def test_threads(folder, capsys):
    (folder / "run.toml").write_text(complete(""), encoding="utf-8")
    assert "--threads is 0" in problem(capsys, "train", "run.toml", "--threads", "0")

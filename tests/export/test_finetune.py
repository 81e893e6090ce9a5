"""A run on one's own rows: its steps follow from them, dev ends it, and `best` is its result."""

import json
import logging
from dataclasses import replace

import pytest

from nerlet.errors import InputError
from nerlet_export import finetune as finetuning
from nerlet_export import train as training
from nerlet_export.checkpoint import load_checkpoint, save_checkpoint
from nerlet_export.cli import main
from nerlet_export.dev import Dev
from nerlet_export.finetune import plan
from nerlet_export.runstate import RunState
from nerlet_export.settings import Settings, Tuning
from nerlet_export.tiny import make_checkpoint

WORDS = ["Ann", "Bob", "Rome", "Oslo", "is", "in"]


@pytest.fixture
def settings(tmp_path):
    rows = [
        {"tokenized_text": [name, "is", "in", city], "ner": [[0, 0, "PER"], [3, 3, "LOC"]]}
        for name in WORDS[:2]
        for city in WORDS[2:4]
    ]
    text = "".join(json.dumps(row | {"license": "mine"}) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    start = make_checkpoint("bert", words=[*WORDS, *(word.lower() for word in WORDS)])
    save_checkpoint(tmp_path / "start", start)
    tuning = Tuning(start=str(tmp_path / "start"), epochs=12, batch_pieces=8, threads=1)
    rows_path = str(tmp_path / "rows.jsonl")
    return plan(rows_path, rows_path, tmp_path / "run", tuning)


def dev_gives(monkeypatch, values):
    """Let the measurements on dev be these, one after the other."""
    left = list(values)

    def measure(*_: object, **__: object) -> Dev:
        f1 = left.pop(0)
        return Dev(threshold=0.5, f1=f1, f1_at_half=f1, by_file={})

    monkeypatch.setattr(training, "measure", measure)
    return left


def steps_of(path):
    return json.loads((path / "training.json").read_text(encoding="utf-8"))["steps"]


def test_steps_follow_from_the_rows(settings):
    pieces = load_checkpoint(settings.start).pieces
    lines = (settings.directory.parent / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    words = [word for line in lines for word in json.loads(line)["tokenized_text"]]
    count = sum(len(own) for own in pieces.encode_units(words))
    assert settings.optimization.steps == -(-12 * count // 8)
    assert settings.dev_every == -(-settings.optimization.steps // 10)


def test_a_run_ends_when_dev_has_not_improved(settings, monkeypatch):
    short = replace(settings, dev_every=2, save_every=100, patience=2)
    left = dev_gives(monkeypatch, [0.2, 0.3, 0.5, 0.4, 0.5, 0.9])
    training.train(short)
    assert left == [0.9]
    assert steps_of(short.directory / "best") == 4
    assert steps_of(short.directory / "last") == 8
    steps: list[int] = []
    assert training.train(short, resume=True, on_step=steps.append) is None
    assert steps == []


def test_a_better_measurement_starts_the_count_anew(settings, monkeypatch):
    short = replace(settings, dev_every=2, patience=2)
    dev_gives(monkeypatch, [0.1, 0.3, 0.2, 0.4, 0.2, 0.2, 0.9])
    training.train(short)
    assert steps_of(short.directory / "last") == 10


def test_without_patience_all_steps_are_done(settings, monkeypatch):
    count = settings.optimization.steps
    dev_gives(monkeypatch, [0.0] * (count + 1))
    training.train(replace(settings, patience=0))
    assert steps_of(settings.directory / "last") == count


class KilledError(Exception):
    pass


def test_the_count_survives_a_resume(settings, monkeypatch):
    """Killed at step 5 and resumed from 4: ends where an unbroken run does, with its weights."""
    short = replace(settings, dev_every=2, save_every=2, patience=2)
    whole = replace(short, directory=short.directory.with_name("whole"))
    dev_gives(monkeypatch, [0.1, 0.3, 0.2, 0.1, 0.9])
    training.train(whole)

    def kill(step):
        if step == 5:
            raise KilledError

    left = dev_gives(monkeypatch, [0.1, 0.3, 0.2, 0.1, 0.9])
    with pytest.raises(KilledError):
        training.train(short, on_step=kill)
    training.train(short, resume=True)
    assert left == [0.9]
    for name in ("best", "last"):
        one = load_checkpoint(whole.directory / name).model.state_dict()
        other = load_checkpoint(short.directory / name).model.state_dict()
        assert all((one[key] == other[key]).all() for key in one)


def test_a_state_from_before_patience_is_resumed(settings, caplog):
    import torch

    training.train(replace(settings, patience=0))
    path = settings.directory / "state.pt"
    state = torch.load(path, weights_only=True)
    del state["settings"]["patience"], state["counters"]["stale"]
    torch.save(state, path)
    assert training.train(replace(settings, patience=0), resume=True) is None
    assert "other settings" not in caplog.text


def test_a_state_counts_what_does_not_improve():
    state = RunState()
    found = [(state.judge(f1), state.stale, state.best_f1) for f1 in (0.0, 0.0, 0.2, 0.1, 0.2)]
    assert found == [
        (True, 0, 0.0), (False, 1, 0.0), (True, 0, 0.2), (False, 1, 0.2), (False, 2, 0.2)
    ]  # fmt: skip


def test_patience_needs_dev(settings):
    with pytest.raises(InputError, match=r"patience waits for F1 on dev: give `dev` in \[data\]"):
        Settings(settings.directory, replace(settings.data, dev=""), start="x", patience=1)


def test_dev_rows_without_a_policy_are_prompted_with_every_type(settings):
    from nerlet_export.dev import read_dev

    line = json.dumps({"tokenized_text": ["is"], "ner": []})
    path = settings.directory.parent / "rows.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
    (dataset,) = read_dev(settings)
    assert dataset.examples[-1].labels == ("LOC", "PER")


def test_the_command(settings, capsys, caplog):
    caplog.set_level(logging.INFO)
    folder = settings.directory.parent
    rows = str(folder / "rows.jsonl")
    arguments = ["finetune", rows, rows, str(folder / "run"), "--start", str(folder / "start")]
    assert main([*arguments, "--threads", "1", "--epochs", "2", "--batch-pieces", "8"]) == 0
    card = json.loads((folder / "run" / "best" / "training.json").read_text(encoding="utf-8"))
    assert card["data"]["licenses"] == ["*"]
    assert "F1 on dev: " in caplog.text
    assert " before (step 0), " in caplog.text
    assert main([*arguments, "--threads", "1"]) == 2
    assert "it holds a run" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("values", "said", "best"),
    [
        ([0.2, 0.5, 0.6, 0.6], "20.0 before (step 0), 60.0 after (step 4)", 4),
        ([0.7, 0.5, 0.6, 0.7], "70.0 before (step 0), not better in 3 measurements since", 0),
    ],
)
def test_the_best_is_never_worse_than_the_start(settings, monkeypatch, caplog, values, said, best):
    caplog.set_level(logging.INFO)
    steps = replace(settings.optimization, steps=6)
    short = replace(settings, optimization=steps, dev_every=2)
    monkeypatch.setattr(finetuning, "plan", lambda *_: short)
    dev_gives(monkeypatch, [0.1, 0.2, 0.3, 0.4])
    training.train(short)
    (settings.directory / "state.pt").unlink()
    dev_gives(monkeypatch, values)
    result = finetuning.finetune("", "", short.directory, tuning=Tuning())
    assert f"F1 on dev: {said}" in caplog.text
    assert steps_of(result) == best


def test_the_default_start_is_the_checkout_s_wherever_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_checkpoint(finetuning.find_default_start()).model.config.max_width > 0
    monkeypatch.setattr(finetuning, "_CHECKOUT", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"nowhere, found nothing; .* checkpoint by --start"):
        plan("rows", "dev", tmp_path / "run", Tuning())
    here = tmp_path / "models" / "small-checkpoint"
    here.mkdir(parents=True)
    assert finetuning.find_default_start() == "models/small-checkpoint"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--epochs", "0"], "epochs is 0.0, expected a number of at least 0.01"),
        (["--head-lr", "nan"], "head_lr is nan, expected a number of at least 1e-09"),
        (["--batch-pieces", "0"], "batch_pieces is 0, expected a whole number of at least 1"),
        (["--patience", "-1"], "patience is -1, expected a whole number of at least 0"),
        (["--start", "nowhere"], "nowhere"),
    ],
)
def test_bad_choices(settings, capsys, option, message):
    folder = settings.directory.parent
    rows = str(folder / "rows.jsonl")
    start = [] if "--start" in option else ["--start", str(folder / "start")]
    assert main(["finetune", rows, rows, str(folder / "run"), *start, *option]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "run").exists()

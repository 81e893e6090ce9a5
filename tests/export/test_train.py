"""A run learns, resumes exactly, and reads its settings strictly."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nerlet.errors import InputError, NerletError
from nerlet_export import train as training
from nerlet_export.checkpoint import load_checkpoint, save_checkpoint
from nerlet_export.data import Example, make_batch
from nerlet_export.loss import span_loss
from nerlet_export.optimizer import make_optimizer, schedule
from nerlet_export.predict import TorchPredictor, prompt_layout
from nerlet_export.running_mean import RunningMean
from nerlet_export.runstate import RunState
from nerlet_export.settings import Data, Optimization, Settings, read_settings
from nerlet_export.tiny import make_checkpoint

NAMES = ["Ann", "Bob", "Mia", "Dan"]
CITIES = ["Rome", "Oslo", "Lima", "Bonn"]


def write_rows(path, count=64):
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(count):
        name, city = rng.choice(NAMES), rng.choice(CITIES)
        words = [*(["so"] * int(rng.integers(1, 4))), name, "is", "in", city]
        ner = [[len(words) - 4, len(words) - 4, "person"], [len(words) - 1] * 2 + ["city"]]
        row = {"tokenized_text": words, "ner": ner, "source": "toy", "negatives": "closed"}
        lines.append({**row, "license": "permissive"})
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def settings(tmp_path):
    torch.set_num_threads(1)
    data = write_rows(tmp_path / "train.jsonl")
    dev = tmp_path / "dev"
    dev.mkdir()
    write_rows(dev / "toy.jsonl", 8)
    words = [w.lower() for w in [*NAMES, *CITIES, "so", "is", "in"]] + NAMES + CITIES
    start = make_checkpoint("bert", words=words, dropout=0.1, word_shapes=True)
    save_checkpoint(tmp_path / "start", start)
    return Settings(
        directory=tmp_path / "run",
        start=str(tmp_path / "start"),
        data=Data(train=str(data), dev=str(dev)),
        optimization=Optimization(
            steps=12, batch_pieces=60, encoder_lr=3e-3, head_lr=1e-2, warm_up=0.1
        ),
        save_every=5,
        dev_every=6,
        device="cpu",
    )


def test_a_run_learns_its_rows(settings):
    longer = replace(settings, optimization=replace(settings.optimization, steps=250))
    dev = training.train(longer)
    assert dev is not None
    assert dev.f1_at_half > 0.9
    predict = TorchPredictor(load_checkpoint(longer.directory / "last"), threshold=0.5)
    (spans,) = predict([["so", "Mia", "is", "in", "Lima"]], ["city", "person"])
    assert [(s.start, s.end, s.label) for s in spans] == [(1, 2, 1), (4, 5, 0)]


def test_resume_is_exact(settings, tmp_path):
    """Killed after its state of step 5 and resumed: the weights of an unbroken run, to the bit."""
    training.train(settings)
    broken = replace(settings, directory=tmp_path / "broken")
    with pytest.raises(KilledError):
        training.train(broken, resume=False, on_step=_kill_at(7))
    training.train(broken, resume=True)
    whole = load_checkpoint(settings.directory / "last").model.state_dict()
    pieced = load_checkpoint(broken.directory / "last").model.state_dict()
    assert all(torch.equal(whole[name], pieced[name]) for name in whole)


class KilledError(Exception):
    pass


def _kill_at(step):
    def kill(current):
        if current == step:
            raise KilledError

    return kill


def test_a_signal_stops_between_steps_and_loses_nothing(settings, tmp_path):
    training.train(settings)
    stopped = replace(settings, directory=tmp_path / "stopped", save_every=1000)
    with pytest.raises(KeyboardInterrupt):
        training.train(stopped, on_step=lambda _: signal.raise_signal(signal.SIGTERM))
    state = torch.load(stopped.directory / "state.pt", weights_only=True)
    assert state["counters"]["step"] == 1
    training.train(stopped, resume=True)
    whole = load_checkpoint(settings.directory / "last").model.state_dict()
    pieced = load_checkpoint(stopped.directory / "last").model.state_dict()
    assert all(torch.equal(whole[name], pieced[name]) for name in whole)


def test_a_finished_run_does_not_go_on(settings):
    training.train(settings)
    steps: list[int] = []
    training.train(settings, resume=True, on_step=steps.append)
    assert steps == []


def test_the_last_checkpoint_is_there_before_the_final_state(settings, monkeypatch):
    """A run killed between the two must not count as done."""
    save = RunState.save
    seen = []

    def watch(state, *arguments):
        seen.append((state.step, (settings.directory / "last" / "training.json").exists()))
        save(state, *arguments)

    monkeypatch.setattr(RunState, "save", watch)
    training.train(settings)
    assert seen == [(5, False), (10, False), (12, True)]


def test_a_run_is_not_replaced_by_a_new_one(settings):
    training.train(settings)
    before = (settings.directory / "state.pt").read_bytes()
    with pytest.raises(InputError, match="--resume, or give another directory"):
        training.train(settings)
    assert (settings.directory / "state.pt").read_bytes() == before


def test_resume_under_other_settings_says_which(settings, caplog):
    training.train(settings)
    assert training.train(settings, resume=True) is None
    assert "other settings" not in caplog.text
    longer = replace(settings, optimization=replace(settings.optimization, steps=14), seed=2)
    assert training.train(longer, resume=True) is not None
    assert "resumed under other settings (optimization.steps, seed)" in caplog.text


def test_a_state_from_before_settings_were_kept_is_resumed(settings):
    training.train(settings)
    path = settings.directory / "state.pt"
    state = torch.load(path, weights_only=True)
    del state["settings"]
    torch.save(state, path)
    longer = replace(settings, optimization=replace(settings.optimization, steps=13))
    assert training.train(longer, resume=True) is not None


@pytest.mark.parametrize("content", [b"", b"x" * 100, None])
def test_a_state_that_is_damaged_or_of_another_model(settings, content):
    settings.directory.mkdir()
    path = settings.directory / "state.pt"
    if content is None:
        parts = ("optimizer", "mean", "counters", "random", "cuda_random")
        torch.save({"model": {"x": torch.zeros(1)}, **dict.fromkeys(parts)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"state\.pt: not the state of a run"):
        training.train(settings, resume=True)


def test_a_state_without_a_part_says_which(settings):
    training.train(settings)
    path = settings.directory / "state.pt"
    state = torch.load(path, weights_only=True)
    del state["mean"]
    torch.save(state, path)
    with pytest.raises(InputError, match=r"found none of mean; another version wrote it: resume"):
        training.train(settings, resume=True)


def test_resume_under_other_rates_takes_them(settings):
    """The state holds the optimiser's groups with their rates, which must not win."""
    training.train(settings)
    still = replace(settings.optimization, steps=14, encoder_lr=1e-30, head_lr=2e-30)
    before = load_checkpoint(settings.directory / "last").model.state_dict()
    training.train(replace(settings, optimization=still), resume=True)
    after = load_checkpoint(settings.directory / "last").model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_from_a_checkpoint_measures_it_first(settings):
    """Steps that ruin the model leave the start as the best, and the log as JSON."""
    wild = replace(settings.optimization, encoder_lr=0.3, head_lr=0.3)
    training.train(replace(settings, optimization=wild))
    text = (settings.directory / "dev.jsonl").read_text()
    assert "NaN" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == [0, 6, 12]
    assert lines[0]["loss"] is None
    best = json.loads((settings.directory / "best" / "training.json").read_text())
    top = max(lines, key=lambda line: line["f1"])
    assert best["steps"] == top["step"]
    assert best["encoder"] == "/".join(Path(settings.start).parts[-2:])


def test_resuming_without_the_mean_goes_on_from_the_weights(settings):
    averaged = replace(settings.optimization, average=0.99)
    training.train(replace(settings, optimization=averaged))
    raw = torch.load(settings.directory / "state.pt", weights_only=True)["model"]
    still = replace(settings.optimization, steps=13, encoder_lr=1e-30, head_lr=2e-30)
    training.train(replace(settings, optimization=still), resume=True)
    last = load_checkpoint(settings.directory / "last").model.state_dict()
    assert all(torch.equal(raw[name], last[name]) for name in raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dev": "nowhere"}, "nowhere: expected a file or folder"),
        ({"mixture": {"toy": 1.0, "tyo": 1.0}}, "mixture names tyo, .* there are toy"),
    ],
)
def test_wrong_data_is_told_before_the_first_step(settings, change, message):
    steps: list[int] = []
    wrong = replace(settings, data=replace(settings.data, **change))
    with pytest.raises(InputError, match=message):
        training.train(wrong, on_step=steps.append)
    assert steps == []
    assert not settings.directory.exists()


def test_a_device_that_is_not_there(settings):
    count = torch.cuda.device_count()
    with pytest.raises(InputError, match=f"finds {count} CUDA devices"):
        training.train(replace(settings, device=f"cuda:{count}"))


def test_a_loss_that_is_not_finite_is_an_error(settings):
    wild = replace(settings.optimization, encoder_lr=1e30, head_lr=1e30, clip_norm=0.0)
    with pytest.raises(NerletError, match=r"step \d+: the loss is nan"):
        training.train(replace(settings, optimization=wild))


def test_another_seed_is_another_run(settings, tmp_path):
    training.train(settings)
    training.train(replace(settings, directory=tmp_path / "other", seed=1))
    first = load_checkpoint(settings.directory / "last").model.state_dict()
    second = load_checkpoint(tmp_path / "other" / "last").model.state_dict()
    assert not all(torch.equal(first[name], second[name]) for name in first)


def test_the_best_checkpoint_carries_its_card(settings):
    dev = training.train(settings)
    card = json.loads((settings.directory / "best" / "training.json").read_text())
    assert card["threshold"] is not None
    assert card["data"]["licenses"] == ["permissive"]
    assert card["steps"] in (0, 6, 12)
    assert dev is not None


def test_loss_is_binary_cross_entropy_over_known_cells():
    checkpoint = make_checkpoint("bert")
    example = Example([[5], [6]], [0, 0], ["a", "b"], [(0, 0, 1)], unsure=[(1, 0, 0)])
    batch = make_batch([example], {"a": [7], "b": [8]}, prompt_layout(checkpoint))
    logits = torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for span, label in [(0, 0), (0, 1), (1, 0), (1, 1), (4, 1)]:  # K = 4; (4, 0) is not known
        score = 1 / (1 + math.exp(-logits[0, span, label]))
        is_entity = (span, label) == (0, 1)
        expected -= 3.0 * math.log(score) if is_entity else math.log(1 - score)
    assert span_loss(logits, batch, positive_weight=3.0).item() == pytest.approx(expected, 1e-5)


def test_focal_loss_and_smoothing_are_their_formulas():
    example = Example([[5], [6]], [0, 0], ["a", "b"], [(0, 0, 1)])
    layout = prompt_layout(make_checkpoint("bert"))
    batch = make_batch([example], {"a": [7], "b": [8]}, layout)
    logits = torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    p = torch.sigmoid(logits)
    hit = batch.targets * p + (1 - batch.targets) * (1 - p)
    focal = (batch.weights * -((1 - hit) ** 2) * hit.log()).sum()
    loss = span_loss(logits, batch, focal=2.0)
    assert loss.item() == pytest.approx(focal.item(), 1e-5)
    slopes, (expected,) = (
        torch.autograd.grad(loss, logits)[0],
        torch.autograd.grad(focal, logits, retain_graph=True),
    )
    torch.testing.assert_close(slopes, expected)
    targets = 0.1 + 0.8 * batch.targets
    smooth = batch.weights * -(targets * p.log() + (1 - targets) * (1 - p).log())
    found = span_loss(logits, batch, smoothing=0.2).item()
    assert found == pytest.approx(smooth.sum().item(), 1e-5)


def test_schedule_rises_then_falls_along_a_cosine():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert rates[:10] == sorted(rates[:10])


def test_encoder_and_heads_have_their_own_rates():
    model = make_checkpoint("bert", word_shapes=True).span_model
    assert model.encoder.segments is not None
    optimizer = make_optimizer(model, Optimization(encoder_lr=1e-5, head_lr=5e-5))
    rates = {id(p): g["peak_lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates[id(model.encoder.words.weight)] == 1e-5
    assert rates[id(model.encoder.segments.weight)] == 5e-5
    assert rates[id(model.heads.label.first.weight)] == 5e-5
    assert len(rates) == len(list(model.parameters()))


def test_lower_layers_move_less():
    model = make_checkpoint("bert").span_model
    options = Optimization(encoder_lr=1e-4, head_lr=1e-3, layer_decay=0.5)
    optimizer = make_optimizer(model, options)
    rates = {id(p): g["peak_lr"] for g in optimizer.param_groups for p in g["params"]}
    layers = model.encoder.model.encoder.layer
    top = [rates[id(layer.output.dense.weight)] for layer in layers]
    assert top == [1e-4 * 0.5**depth for depth in reversed(range(len(layers)))]
    assert rates[id(model.encoder.words.weight)] == 1e-4 * 0.5 ** len(layers)
    assert rates[id(model.heads.label.first.weight)] == 1e-3


def test_the_running_mean_is_what_checkpoints_hold_and_resumes_exactly(settings, tmp_path):
    options = replace(settings.optimization, average=0.9)
    followed = replace(settings, optimization=options)
    training.train(followed)
    training.train(replace(settings, directory=tmp_path / "raw"))
    broken = replace(followed, directory=tmp_path / "broken")
    with pytest.raises(KilledError):
        training.train(broken, on_step=_kill_at(7))
    training.train(broken, resume=True)
    mean, raw, pieced = (
        load_checkpoint(folder / "last").model.state_dict()
        for folder in (settings.directory, tmp_path / "raw", broken.directory)
    )
    assert all(torch.equal(mean[name], pieced[name]) for name in mean)
    assert not any(torch.equal(mean[n], raw[n]) for n in mean if n.startswith("heads"))
    state = torch.load(settings.directory / "state.pt", weights_only=True)["model"]
    assert all(torch.equal(raw[name], state[name]) for name in raw)


def test_the_running_mean_is_a_mean():
    model = make_checkpoint("bert").span_model
    mean = RunningMean(model, 0.5)
    weight, seen = model.heads.label.first.weight, []
    expected = weight.detach().clone()
    for step in range(1, 9):
        with torch.no_grad():
            weight.add_(1.0)
        mean.update()
        share = min(0.5, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * weight.detach()
        seen.append(torch.allclose(mean.model.heads.label.first.weight, expected))
    assert all(seen)


def test_batches_hold_like_lengths_and_the_budget(settings):
    checkpoint = load_checkpoint(settings.start)
    corpus = training.load_corpus(settings, checkpoint)
    parts = training.step_examples(
        corpus, {"toy": 1.0}, prompt_layout(checkpoint), settings, pool=3
    )
    assert len(parts) == 8
    sizes = [sum(example.size for example in part) for part in parts]
    assert all(30 <= size <= 90 for size in sizes)
    spread = [max(e.size for e in part) - min(e.size for e in part) for part in parts]
    assert max(spread) <= 1


def test_data_is_found_under_the_variable(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "start")
    monkeypatch.setenv("NERLET_DATA", str(tmp_path))
    data = replace(settings.data, train="train.jsonl", dev="dev")
    dev = training.train(replace(settings, data=data))
    assert dev is not None
    monkeypatch.delenv("NERLET_DATA")
    with pytest.raises(InputError, match="NERLET_DATA"):
        training.train(replace(settings, data=data, directory=tmp_path / "other"))


def test_derived_dates_join_the_corpus(settings):
    derived = replace(settings, data=replace(settings.data, derive=("dates",)))
    corpus = training.load_corpus(derived, load_checkpoint(settings.start))
    assert {source: len(rows) for source, rows in corpus.rows.items()} == {
        "toy": 64,
        "dates-none": 64,
    }


def test_settings_refuse_unknown_keys(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('[run]\nencoder = "x"\n[data]\ntrain = "y"\ntypo = 1\n')
    with pytest.raises(InputError, match=r"\[data\]: unknown key typo"):
        read_settings(path)


def test_settings_need_one_beginning(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('[data]\ntrain = "y"\n')
    with pytest.raises(InputError, match="either `encoder`"):
        read_settings(path)


def test_the_default_run_file_is_valid():
    from pathlib import Path

    settings = read_settings(Path(__file__).parents[2] / "export" / "runs" / "small.toml")
    assert settings.data.licenses == ("permissive",)
    assert sum(settings.data.mixture.values()) == pytest.approx(1.0)

"""Every kind of model over every encoder in every precision: what docs/models.md says of them.

Of each pair a checkpoint is made and saved by `gliner`, and converted. Asked the same, the fp32
bundle must find the reference's entities with its scores; int8 and half precision may drift by no
more than the bounds here. Each cell goes into the report of the run, from which models_page.py
writes the page.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnxruntime as ort
import pytest

import nerlet
from nerlet.errors import BundleError, InputError
from nerlet.manifest import Manifest
from nerlet.sessions import CUDA
from nerlet_export import verify
from nerlet_export.convert import convert
from nerlet_export.half import HALF_MEAN_DRIFT
from tests.export.kinds import KINDS, Kind
from tests.export.matrix import ENCODERS
from tests.export.models_page import PAGE
from tests.export.parity import Call, Outcome, draw_call, entity_key
from tests.export.test_relex import WORDS, Found, compare_calls
from tests.toys import write_export

CALLS = 4  # of 6 to 11 texts: flat or nested, one label or several a span
LEAST_TEXTS = 20
# Of int8, in toys of width 16, T5's the worst of them; a model's drift is a tenth of it.
INT8_MEAN_DRIFT = 0.08  # of a score
LEAST_AGREEMENT = 0.6  # F1 of the entities with the reference's, at the thresholds drawn
QUICK = ("bert",)  # whose cells are not slow: over three encoders the kinds have their own tests
REFUSED_KINDS: dict[str, dict[str, object]] = {
    "generated labels": {"labels_decoder": "gpt2"},
    "streaming": {"model_type": "gliner_streaming_span"},
    "built-in labels": {"precomputed_prompts_mode": True},
}

Record = Callable[..., None]


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Record:
    """Put one cell into the report of the run."""

    def put(kind: str, encoder: str, precision: str, device: str, **figures: object) -> None:
        cell = {"kind": kind, "encoder": encoder, "precision": precision, "device": device}
        record_property("cell", json.dumps(cell | figures))

    return put


def list_cells() -> list[Any]:
    """Each kind with each encoder; quick are the main kinds over one."""
    return [
        pytest.param(
            kind,
            encoder,
            id=f"{kind.name}-{encoder}",
            marks=[] if kind.is_main and encoder in QUICK else [pytest.mark.slow],
        )
        for kind in KINDS
        for encoder in ENCODERS
        if encoder != "xlnet"
    ]


EVERY_CELL = pytest.mark.parametrize(("kind", "encoder"), list_cells())


@EVERY_CELL
def test_on_a_cpu(tmp_path, monkeypatch, record, kind, encoder):
    monkeypatch.setattr(verify, "BATCHES", 2)  # here the reference is compared with
    oracle = kind.make(tmp_path / "encoder", encoder)
    oracle.save_pretrained(tmp_path / "checkpoint")
    convert(tmp_path / "checkpoint", tmp_path / "exact", precision="fp32")
    manifest = convert(tmp_path / "checkpoint", tmp_path / "rough", fp16=not kind.has_relations)

    exact = compare(kind, oracle, nerlet.load(tmp_path / "exact", threads=1))
    assert not exact.differences, f"{len(exact.differences)}: {exact.differences[0]}"
    assert exact.compared >= LEAST_TEXTS
    assert exact.entities > CALLS
    assert exact.excluded <= 1
    found = {"texts": exact.compared, "entities": exact.entities}
    if kind.has_relations:
        related = Found()
        compare_calls(oracle, tmp_path / "exact", random.Random(0), related)
        assert not related.differences, f"{len(related.differences)}: {related.differences[0]}"
        assert related.relations > CALLS
        found["relations"] = related.relations
    record(kind.name, encoder, "fp32", "cpu", **found)

    agreement = agree(kind, oracle, nerlet.load(tmp_path / "rough", threads=1))
    drift = read_drift(manifest, "int8")
    assert drift <= INT8_MEAN_DRIFT
    assert agreement >= LEAST_AGREEMENT
    record(kind.name, encoder, "int8", "cpu", drift=drift, agreement=round(agreement, 3))

    if kind.has_relations:
        with pytest.raises(InputError, match="is converted without fp16") as raised:
            convert(tmp_path / "checkpoint", tmp_path / "half", fp16=True)
        record(kind.name, encoder, "fp16", "cpu", reason=tell(raised.value, "checkpoint: "))
        return
    drift = read_drift(manifest, "fp16")
    assert drift <= HALF_MEAN_DRIFT
    record(kind.name, encoder, "fp16", "cpu", drift=drift)


@pytest.mark.slow
@EVERY_CELL
def test_on_a_gpu(tmp_path, monkeypatch, record, kind, encoder):
    if CUDA not in ort.get_available_providers():
        for precision in ("fp32", "fp16"):
            record(kind.name, encoder, precision, "cuda")
        pytest.skip("this onnxruntime has no CUDA")
    monkeypatch.setattr(verify, "BATCHES", 2)
    oracle = kind.make(tmp_path / "encoder", encoder)
    oracle.save_pretrained(tmp_path / "checkpoint")
    convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32", fp16=True)
    for precision, graph in (("fp32", "model.onnx"), ("fp16", "model_fp16.onnx")):
        ours = nerlet.load(tmp_path / "bundle", graph=graph, device="cuda")
        agreement = agree(kind, oracle, ours)
        assert agreement >= 0.95
        record(kind.name, encoder, precision, "cuda", agreement=round(agreement, 3))


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_xlnet_is_refused(tmp_path, record, kind):
    kind.make(tmp_path / "encoder", "xlnet").save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(BundleError, match=r"the encoder is 'xlnet': .* take ") as raised:
        convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32")
    record(kind.name, "xlnet", "any", "any", reason=tell(raised.value, "xlnet'"))


@pytest.mark.parametrize("name", REFUSED_KINDS)
def test_kinds_that_are_refused(tmp_path, record, name):
    """At load, with the reason and what works instead."""
    with pytest.raises(BundleError) as raised:
        nerlet.load(write_export(tmp_path / "toy", config=REFUSED_KINDS[name]))
    record(name, "any", "any", "any", reason=tell(raised.value, "found "))


def test_the_page_has_every_cell():
    """None failed or was left out when it was written, but where there was no GPU."""
    page = PAGE.read_text(encoding="utf-8")
    for title in ("fp32 on a CPU", "int8 on a CPU", "fp16 on a CPU"):
        rows = page.partition(f"## {title}\n")[2].partition("## ")[0].splitlines()
        cells = {row.split(" | ")[0].lstrip("| "): row.split(" | ")[1:] for row in rows}
        for kind in KINDS:
            assert len(cells[kind.name]) == len(ENCODERS)
            assert not {"not tried", "✗"} & set(cells[kind.name])
    assert all(f"| {name} |" in page for name in REFUSED_KINDS)


def read_drift(manifest: Manifest, precision: str) -> float:
    """What verification found between a graph and the float one."""
    report: Any = manifest.verification[precision]
    return float(report["mean_score_drift"])


def tell(error: Exception, after: str) -> str:
    """What an error says, without the path."""
    return str(error).partition(after)[2].lstrip(": ")


def compare(kind: Kind, oracle: Any, ours: nerlet.GLiNER) -> Outcome:
    """Ask both for entities, flat or nested, of one label or of several."""
    outcome = Outcome()
    for call in draw_calls(kind):
        outcome.add_call(call, ask(kind, ours, call), ask(kind, oracle, call))
    return outcome


def agree(kind: Kind, oracle: Any, ours: nerlet.GLiNER) -> float:
    """F1 of ours with the reference's entities."""
    both = found = expected = 0
    for call in draw_calls(kind):
        for mine, other in zip(ask(kind, ours, call), ask(kind, oracle, call), strict=True):
            keys = set(map(entity_key, mine)), set(map(entity_key, other))
            both += len(keys[0] & keys[1])
            found += len(keys[0])
            expected += len(keys[1])
    return 2 * both / (found + expected)


def ask(kind: Kind, model: Any, call: Call) -> Any:
    """Entities, of ours or the reference's; beside a relation where the kind has them."""
    if not kind.has_relations:
        return model.inference(call.texts, **call.arguments)
    if not call.texts[0].strip():  # the reference fails where no text has a word
        return [[]]
    plain = {"threshold": call.thresholds[0]}  # the reference takes none by text
    found, _ = model.inference(call.texts, relations=["of"], **{**call.arguments, **plain})
    return found


def draw_calls(kind: Kind) -> list[Call]:
    """The calls of a kind; texts alone where the reference's head reads a batch's padding."""
    rng = random.Random(len(kind.name))
    calls: list[Call] = []
    for number in range(CALLS):
        call = draw_call(rng, number)
        options = {"flat_ner": number % 2 == 0, "multi_label": number % 4 > 1}
        call = replace(call, arguments={**call.arguments, **options})
        if kind.has_relations:  # whose pairs grow with the square
            call = replace(call, texts=[" ".join(text.split()[:WORDS]) for text in call.texts])
        calls += call.singly() if kind.sees_padding else [call]
    return calls

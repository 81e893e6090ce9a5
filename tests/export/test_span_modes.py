"""Every span mode of the reference, and every encoder, against the reference itself.

Of each cell of `matrix` a checkpoint is made and saved by `gliner` and converted. Its graph gets
the reference's own ragged batches and must give its logits; the bundle in `nerlet` must find its
entities.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nerlet
from nerlet.errors import BundleError
from nerlet_export import verify
from nerlet_export.convert import convert
from nerlet_export.heads import HEADS
from tests.export.matrix import CELLS, REFUSED, SPAN_MODES, STATUS, VERIFIED, Cell
from tests.export.parity import LABELS, WHOLE, Outcome, draw_call, draw_text
from tests.export.reference_models import make_reference, run_reference

LOGIT_TOLERANCE = 1e-4
SIZES = (1, 2, 3, 5)  # texts of the ragged batches
CALLS = 4  # of 6 to 11 texts: flat or nested, one label or several a span
LEAST_TEXTS = 20  # with words, in those
ANY_CELL = pytest.mark.parametrize("cell", CELLS, ids="-".join)


@dataclass(frozen=True, slots=True)
class Found:
    """What comparing one cell found.

    Attributes:
        shapes: Of the logits, (B, L, K, C).
        logits: How many of them mean something and were compared.
        difference: The largest.
        deviation: Of the reference's logits.
        outcome: Of the entities.
    """

    shapes: list[tuple[int, ...]]
    logits: int
    difference: float
    deviation: float
    outcome: Outcome


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Cell], Found]:
    """Make, save, convert and compare each cell once."""
    done: dict[Cell, Found] = {}

    def get(cell: Cell) -> Found:
        if cell not in done:
            folder = tmp_path_factory.mktemp("-".join(cell))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(verify, "BATCHES", 2)  # here the reference's are compared
                done[cell] = examine(folder, cell)
        return done[cell]

    return get


def examine(folder: Path, cell: Cell) -> Found:
    mode, encoder = cell
    number = CELLS.index(cell)
    oracle = make_reference(
        folder / "encoder",
        encoder=encoder,
        span_mode=mode,
        is_projected=number % 3 == 1,
        has_rnn=number % 4 == 1,
        seed=number,
        words=WHOLE,
    )
    oracle.save_pretrained(folder / "checkpoint", safe_serialization=number % 5 != 0)
    convert(folder / "checkpoint", folder / "bundle", precision="fp32")
    shapes, pairs = compare_logits(oracle, folder / "bundle", random.Random(number))
    ours, theirs = np.concatenate(pairs, axis=1)
    return Found(
        shapes=shapes,
        logits=len(ours),
        difference=float(np.abs(ours - theirs).max()),
        deviation=float(theirs.std()),
        outcome=compare_entities(oracle, folder / "bundle", random.Random(number)),
    )


def compare_logits(
    oracle: Any, bundle: Path, rng: random.Random
) -> tuple[list[tuple[int, ...]], list[np.ndarray]]:
    """Run ragged batches; shapes, and of each batch the known logits, ours and the oracle's."""
    session = verify.open_session(bundle / "model.onnx")
    shapes, pairs = [], []
    for size in SIZES:
        texts = [draw_text(rng) for _ in range(size)]
        labels = [rng.sample(LABELS, rng.randint(1, 8)) for _ in texts]
        feeds, theirs = run_reference(oracle, texts, labels)
        ours = verify.run_graph(session, feeds)
        assert ours.shape == theirs.shape
        is_span = feeds["span_mask"].reshape(ours.shape[:3]) > 0
        is_label = np.arange(ours.shape[3]) < np.array([len(own) for own in labels])[:, None]
        known = is_span[..., None] & is_label[:, None, None, :]
        shapes.append(ours.shape)
        pairs.append(np.stack([ours[known], theirs[known]]))
    return shapes, pairs


def compare_entities(oracle: Any, bundle: Path, rng: random.Random) -> Outcome:
    """Ask both for entities, flat or nested, of one label or of several."""
    model, outcome = nerlet.load(bundle, threads=1), Outcome()
    is_alone = HEADS[oracle.config.span_mode].sees_padding
    for number in range(CALLS):
        call = draw_call(rng, number)
        options = {"flat_ner": number % 2 == 0, "multi_label": number % 4 > 1}
        call = replace(call, arguments={**call.arguments, **options})
        # In a batch of the reference's such a head reads padding; nerlet runs texts alone
        for own in call.singly() if is_alone else [call]:
            expected = oracle.inference(own.texts, **own.arguments)
            outcome.add_call(own, model.inference(own.texts, **own.arguments), expected)
    return outcome


@ANY_CELL
def test_logits_of_ragged_batches_are_the_references(found, cell):
    cell_found = found(cell)
    assert cell_found.difference <= LOGIT_TOLERANCE
    assert cell_found.deviation > 0.5
    assert cell_found.logits > 1000
    assert len({shape[1] for shape in cell_found.shapes}) > 2
    assert len({shape[3] for shape in cell_found.shapes}) > 1


@ANY_CELL
def test_entities_are_the_references(found, cell):
    outcome = found(cell).outcome
    assert not outcome.differences, f"{len(outcome.differences)}: {outcome.differences[0]}"
    assert outcome.entities > CALLS


def test_every_cell_was_compared(found):
    """As often as it takes to call a cell verified; few texts are left out for noise."""
    outcomes = {cell: found(cell).outcome for cell in CELLS}
    enough = [cell for cell, own in outcomes.items() if own.compared >= LEAST_TEXTS]
    assert dict.fromkeys(enough, VERIFIED) == {
        cell: status for cell, status in STATUS.items() if status != REFUSED
    }
    assert len(enough) == 3 * len(SPAN_MODES) + 9
    compared = sum(own.compared for own in outcomes.values())
    excluded = sum(own.excluded for own in outcomes.values())
    assert excluded <= 0.01 * (compared + excluded)


def test_the_modes_are_those_of_the_reference_and_ours(tmp_path):
    """Layers of its module that no mode names can be in no checkpoint."""
    for mode in ("conv_normal", "endpoints", "conv_share_v2"):
        with pytest.raises(ValueError, match=f"Unknown span mode {mode}"):
            make_reference(tmp_path / mode, encoder="bert", span_mode=mode)
    assert set(HEADS) == {"paper", *SPAN_MODES}


def test_xlnet_is_refused_with_the_reason(tmp_path):
    model = make_reference(tmp_path / "encoder", encoder="xlnet")
    model.save_pretrained(tmp_path / "checkpoint", safe_serialization=True)
    with pytest.raises(BundleError, match=r"the encoder is 'xlnet': .* take .*'deberta-v2'"):
        convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32")
    assert not (tmp_path / "bundle").exists()
    assert [cell for cell, status in STATUS.items() if status == REFUSED] == [("markerV0", "xlnet")]

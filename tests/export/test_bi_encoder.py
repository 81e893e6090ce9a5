"""Bi-encoders against the reference: logits, embeddings of labels, and entities, cell by cell.

Of each cell of `matrix.BI_STATUS` a checkpoint is made and saved by `gliner` and converted. Its two
graphs get the reference's own ragged batches and must give its logits; the bundle in `nerlet` must
make its embeddings and find its entities.
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
from nerlet_export.bi import PIECES_INPUTS
from nerlet_export.convert import convert
from nerlet_export.heads import HEADS
from tests.export.bi_models import collate, make_bi_reference, run_bi_reference
from tests.export.matrix import BI_CELLS, BI_ENCODERS, BI_STATUS, REFUSED, VERIFIED, Cell
from tests.export.parity import LABELS, WHOLE, Outcome, draw_call, draw_text

TOLERANCE = 1e-4  # of a logit, and of a number of an embedding
SIZES = (1, 2, 4)  # texts of the ragged batches
CALLS = 3  # of 6 to 11 texts, by `inference`; one more beside given embeddings
LEAST_TEXTS = 20  # with words, in those
ANY_CELL = pytest.mark.parametrize("cell", BI_CELLS, ids="-".join)
_LABELS_ENCODERS = ("deberta-v2", "mpnet", "bert")  # in turn


@dataclass(frozen=True, slots=True)
class Found:
    """What comparing one cell found.

    Attributes:
        shapes: Of the logits.
        logits: How many of them mean something and were compared.
        difference: The largest.
        deviation: Of the reference's logits.
        of_embeddings: The largest difference of a number of an embedding.
        outcome: Of the entities.
    """

    shapes: list[tuple[int, ...]]
    logits: int
    difference: float
    deviation: float
    of_embeddings: float
    outcome: Outcome


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Cell], Found]:
    """Make, save, convert and compare each cell once."""
    done: dict[Cell, Found] = {}

    def get(cell: Cell) -> Found:
        if cell not in done:
            folder = tmp_path_factory.mktemp("cell")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(verify, "BATCHES", 2)  # here the reference's are compared
                done[cell] = examine(folder, cell)
        return done[cell]

    return get


def examine(folder: Path, cell: Cell) -> Found:
    mode, encoder = cell
    number = BI_CELLS.index(cell)
    is_safe = number % 2 == 0
    oracle = make_bi_reference(
        folder / "encoders",
        encoder=encoder,
        labels_encoder=_LABELS_ENCODERS[number % 3],
        span_mode=mode.partition(" ")[0],
        width=12 if number % 3 == 1 else 16,  # projection of texts, and so of labels
        labels_width=20 if number % 4 > 1 else 16,  # labels_projection
        has_rnn=number % 2 == 1,
        schema="l2l-l2t-t2t-t2l" if "fused" in mode else "",
        seed=number + 20,  # with which every model finds some
        words=WHOLE,
    )
    oracle.save_pretrained(folder / "checkpoint", safe_serialization=is_safe)
    convert(folder / "checkpoint", folder / "bundle", precision="fp32")
    model = nerlet.load(folder / "bundle", threads=1)
    shapes, pairs = compare_logits(oracle, folder / "bundle", random.Random(number))
    ours, theirs = np.concatenate(pairs, axis=1)
    embeddings = model.encode_labels(LABELS) - oracle.encode_labels(list(LABELS)).numpy()
    return Found(
        shapes=shapes,
        logits=len(ours),
        difference=float(np.abs(ours - theirs).max()),
        deviation=float(theirs.std()),
        of_embeddings=float(np.abs(embeddings).max()),
        outcome=compare_entities(oracle, model, random.Random(number)),
    )


def compare_logits(
    oracle: Any, bundle: Path, rng: random.Random
) -> tuple[list[tuple[int, ...]], list[np.ndarray]]:
    """Run ragged batches; shapes, and of each batch the known logits, ours and the oracle's."""
    session = verify.LabelsFirst(
        verify.open_session(bundle / "labels_encoder.onnx"),
        verify.open_session(bundle / "model.onnx"),
    )
    inputs = ["input_ids", "attention_mask", "words_mask", "text_lengths", *PIECES_INPUTS]
    if oracle.config.span_mode != "token_level":
        inputs += ["span_idx", "span_mask"]
    shapes, pairs = [], []
    for size in SIZES:
        texts = [draw_text(rng) for _ in range(size)]
        labels = rng.sample(LABELS, rng.randint(1, 8))
        batch = collate(oracle, texts, labels)
        theirs = run_bi_reference(oracle, texts, labels).logits.numpy()
        ours = verify.run_graph(session, {name: np.asarray(batch[name]) for name in inputs})
        assert ours.shape == theirs.shape
        known = np.arange(ours.shape[1]) < np.asarray(batch["text_lengths"])  # (B, L)
        if "span_mask" in inputs:
            known = np.asarray(batch["span_mask"]).reshape(ours.shape[:3]) > 0
        shapes.append(ours.shape)
        pairs.append(np.stack([ours[known].ravel(), theirs[known].ravel()]))
    return shapes, pairs


def compare_entities(oracle: Any, model: nerlet.GLiNER, rng: random.Random) -> Outcome:
    """Ask both for entities, flat or nested, of one label or of several, labels read or given."""
    outcome, mode = Outcome(), oracle.config.span_mode
    is_alone = mode in HEADS and HEADS[mode].sees_padding
    for number in range(CALLS):
        call = draw_call(rng, 3 * number)  # a list, one per text, then descriptions per text
        options = {"flat_ner": number % 2 == 0, "multi_label": number % 2 == 1}
        call = replace(call, arguments={**call.arguments, **options})
        # In a batch of the reference's such a head reads padding; nerlet runs texts alone
        for own in call.singly() if is_alone else [call]:
            expected = oracle.inference(own.texts, **own.arguments)
            outcome.add_call(own, model.inference(own.texts, **own.arguments), expected)
    call = draw_call(rng, 0)
    labels = list(dict.fromkeys(call.arguments["labels"]))
    call = replace(call, arguments={**call.arguments, "labels": labels})
    for own in call.singly() if is_alone else [call]:
        expected = oracle.batch_predict_with_embeds(
            own.texts, oracle.encode_labels(labels), **own.arguments
        )
        given = model.encode_labels(labels)
        ours = model.batch_predict_with_embeds(own.texts, given, **own.arguments)
        outcome.add_call(own, ours, expected)
    return outcome


@ANY_CELL
def test_logits_of_ragged_batches_are_the_references(found, cell):
    own = found(cell)
    assert own.difference <= TOLERANCE
    assert own.deviation > 0.5
    assert own.logits > 500
    assert len({shape[1] for shape in own.shapes}) > 1


@ANY_CELL
def test_embeddings_of_labels_are_the_references(found, cell):
    assert found(cell).of_embeddings <= TOLERANCE


@ANY_CELL
def test_entities_are_the_references(found, cell):
    outcome = found(cell).outcome
    assert not outcome.differences, f"{len(outcome.differences)}: {outcome.differences[0]}"
    assert outcome.entities > CALLS


def test_every_cell_was_compared(found):
    """As often as it takes to call a cell verified; few texts are left out for noise."""
    outcomes = {cell: found(cell).outcome for cell in BI_CELLS}
    enough = [cell for cell, own in outcomes.items() if own.compared >= LEAST_TEXTS]
    assert enough == BI_CELLS
    assert len(BI_CELLS) == 2 * len(BI_ENCODERS) + 5
    compared = sum(own.compared for own in outcomes.values())
    excluded = sum(own.excluded for own in outcomes.values())
    assert excluded <= 0.01 * (compared + excluded)


def test_what_is_not_built_is_refused_with_the_reason(tmp_path):
    refused = []
    for number, (mode, encoder) in enumerate(BI_STATUS):
        if BI_STATUS[mode, encoder] != REFUSED:
            continue
        folder = tmp_path / str(number)
        model = make_bi_reference(
            folder / "encoders",
            encoder="bert" if encoder == "bert" else "deberta-v2",
            labels_encoder=encoder,
            span_mode=mode.partition(" ")[0],
            represents_spans="represent_spans" in mode,
        )
        model.save_pretrained(folder / "checkpoint")
        with pytest.raises(BundleError) as raised:
            convert(folder / "checkpoint", folder / "bundle")
        refused.append(str(raised.value))
        assert not (folder / "bundle").exists()
    assert (
        "represent_spans is True, but this version of nerlet_export builds only False" in refused[0]
    )
    assert "the encoder is 'xlnet'" in refused[1]
    assert set(BI_STATUS.values()) == {VERIFIED, REFUSED}

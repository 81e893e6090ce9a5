"""Joint entity and relation models of the reference, cell by cell of the matrix.

Checkpoints are made and saved by `gliner`, which is the oracle: on ragged batches the float graph
must give its logits, choose its entities and pairs, and score their relations alike; the bundle in
`nerlet` must find its entities and relations, in order and key by key.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nerlet
from nerlet.errors import BundleError
from nerlet.scores import sigmoid
from nerlet.words import split_words
from nerlet_export import verify
from nerlet_export.convert import convert
from nerlet_export.relation_model import find_token_spans
from nerlet_export.verify_relations import choose_limit
from tests.export.matrix import REFUSED
from tests.export.parity import (
    LABELS,
    TOLERANCE,
    WHOLE,
    draw_text,
    find_difference,
    is_noise,
)
from tests.export.relation_matrix import CELLS, LAYER_STATUS, RELEX_STATUS, Cell
from tests.export.relation_models import (
    make_relation_reference,
    probe_relations,
    run_relations,
)

LOGIT_TOLERANCE = 1e-4
RELATIONS = ("works for", "located in", "likes", "of", "тип", "founded by", "人物")
SIZES = (1, 3)  # texts of the ragged batches
CALLS = 2
ENTITIES = 7  # of a text, about
WORDS = 14  # of a text, at most: pairs grow with the square
NUDGE = 2e-5  # of a threshold, when noise is looked for
ANY_CELL = pytest.mark.parametrize("key", CELLS, ids="-".join)


@dataclass(slots=True)
class Found:
    """What comparing one cell found.

    Attributes:
        logits: Of entities, compared.
        pairs: Of entities, chosen alike.
        scores: Of relations, compared.
        difference: The largest of any logit.
        texts: Compared in calls.
        excluded: Texts that noise of floats decides.
        entities: That the oracle found.
        relations: That the oracle found.
        differences: What differs and should not.
    """

    logits: int = 0
    pairs: int = 0
    scores: int = 0
    difference: float = 0.0
    texts: int = 0
    excluded: int = 0
    entities: int = 0
    relations: int = 0
    differences: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Found]:
    """Make, save, convert and compare each cell once."""
    done: dict[Cell, Found] = {}

    def get(key: Any) -> Found:
        cell = CELLS[key]
        if cell not in done:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(verify, "BATCHES", 1)  # here the reference's are compared
                done[cell] = examine(tmp_path_factory.mktemp("-".join(key)), cell)
        return done[cell]

    return get


def examine(folder: Path, cell: Cell) -> Found:
    number = list(CELLS.values()).index(cell)
    oracle = make_relation_reference(
        folder / "encoder",
        encoder=cell.encoder,
        span_mode=cell.span_mode,
        relations_layer=cell.relations_layer,
        triples_layer=cell.triples_layer,
        has_rnn=number % 4 == 1,
        seed=100 + number,  # under which no layer's scores are all the same
        words=WHOLE,
    )
    oracle.save_pretrained(folder / "checkpoint", safe_serialization=number % 5 != 0)
    convert(folder / "checkpoint", folder / "bundle", precision="fp32")
    own = Found()
    compare_tensors(oracle, folder / "bundle", random.Random(number), own)
    compare_calls(oracle, folder / "bundle", random.Random(number), own)
    return own


def choose_threshold(
    oracle: Any, texts: list[str], labels: list[list[str]], relations: list[list[str]], wanted: int
) -> float:
    """A threshold above which as many spans as wanted, about, are entities, and none is near."""
    given = {"threshold": 0.0, "adjacency_threshold": 1.0}
    feeds, found = run_relations(oracle, texts, labels, relations, **given)
    scores = sigmoid(found["logits"])
    if "span_mask" in feeds:
        scores = scores.max(-1)[feeds["span_mask"].reshape(scores.shape[:3]) > 0]
        limit = choose_limit(scores, wanted, lambda own: int((scores > own).sum()))
    else:
        logits = torch.from_numpy(found["logits"])
        limit = choose_limit(scores, wanted, lambda own: int(find_token_spans(logits, own).sum()))
    return float(limit.clip(0, 1))


def choose_share(scores: np.ndarray, share: float) -> float:
    """A threshold above which a share of scores lies, and none is near."""
    count = int(share * scores.size)
    limit = float(choose_limit(scores, count, lambda own: int((scores > own).sum())))
    return min(limit, 1.0) if limit > 0 else 1.0  # none, where all are as good as 0


def compare_tensors(oracle: Any, bundle: Path, rng: random.Random, own: Found) -> None:
    """Run ragged batches of both."""
    session = verify.open_session(bundle / "model.onnx")
    names = [value.name for value in session.get_inputs()]
    for size in SIZES if oracle.config.span_mode != "markerV2" else (1, 1):  # it sees padding
        texts = [draw_short_text(rng) for _ in range(size)]
        labels = [rng.sample(LABELS, rng.randint(1, 3)) for _ in texts]
        relations = [rng.sample(RELATIONS, rng.randint(1, 4)) for _ in texts]
        asked = (texts, labels, relations)
        limit = choose_threshold(oracle, *asked, wanted=ENTITIES * size)
        pairs, _ = probe_relations(oracle, *asked, limit)
        given: dict[str, float] = {
            "threshold": limit,
            "adjacency_threshold": choose_share(pairs, 0.7),
        }
        feeds, theirs = run_relations(oracle, texts, labels, relations, **given)
        limits = {name: np.array(value, dtype=np.float32) for name, value in given.items()}
        inputs = {**{name: feeds[name] for name in names}, **limits}
        ours = dict(zip(theirs, session.run(list(theirs), inputs), strict=True))
        for name in ("rel_idx", "rel_mask", "entity_spans"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        is_label = is_asked(labels)[:, None]
        shape = ours["logits"].shape
        known = is_label[:, None] if "span_mask" in feeds else is_label[..., None]
        known = np.broadcast_to(known & is_span(feeds, shape), shape)
        is_relation = theirs["rel_mask"][..., None] & is_asked(relations)[:, None]
        for name, cells in (("logits", known), ("rel_logits", is_relation)):
            difference = np.abs(ours[name] - theirs[name])[cells]
            own.difference = max(own.difference, float(difference.max(initial=0)))
        own.logits += int(known.sum())
        own.pairs += int(theirs["rel_mask"].sum())
        own.scores += int(is_relation.sum())


def is_asked(names: list[list[str]]) -> np.ndarray:
    """Which columns are a text's own, (B, most)."""
    counts = np.array([len(own) for own in names])
    return np.arange(counts.max()) < counts[:, None]


def is_span(feeds: dict[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Which spans or words are in the text, (B, L, K, 1) or (B, L, 1, 1)."""
    if "span_mask" in feeds:
        return feeds["span_mask"].reshape(shape[:3])[..., None] > 0
    return (np.arange(shape[1]) < feeds["text_lengths"])[:, :, None, None]


def draw_short_text(rng: random.Random) -> str:
    text = draw_text(rng)
    return text[: split_words(text)[:WORDS][-1].end]


def draw_call(rng: random.Random) -> tuple[list[str], dict[str, Any], dict[str, list[Any]]]:
    """Draw texts, arguments that are the same for all, and arguments with one value a text."""
    texts = [draw_short_text(rng) for _ in range(6)]

    def draw_labels() -> Any:
        labels = rng.sample(LABELS, rng.randint(1, 3))
        return {own: f"{own} it is" for own in labels} if rng.random() < 0.3 else labels

    draws: dict[str, Callable[[], Any]] = {
        "labels": draw_labels,
        "relations": lambda: rng.sample(RELATIONS, rng.randint(1, 4)),
        "flat_ner": lambda: rng.random() < 0.5,
        "multi_label": lambda: rng.random() < 0.3,
    }
    of_each = [name for name in draws if rng.random() < 0.4]
    shared = {name: draw() for name, draw in draws.items() if name not in of_each}
    return texts, shared, {name: [draws[name]() for _ in texts] for name in of_each}


def draw_limits(
    oracle: Any, text: str, given: dict[str, Any], rng: random.Random
) -> dict[str, Any]:
    """Draw a text's thresholds, where it has entities, pairs and relations above and below them."""
    labels, relations = given["labels"], given["relations"]
    labels = list(labels.values() if isinstance(labels, dict) else labels)
    wanted = rng.randint(ENTITIES // 2, 2 * ENTITIES)
    limit = choose_threshold(oracle, [text], [labels], [relations], wanted)
    pairs, logits = probe_relations(oracle, [text], [labels], [relations], limit)
    return {
        "threshold": limit,
        "adjacency_threshold": choose_share(pairs, rng.choice([0.3, 0.6, 0.9])),
        "relation_threshold": choose_share(sigmoid(logits), rng.choice([0.1, 0.5, 0.9])),
    }


def compare_calls(oracle: Any, bundle: Path, rng: random.Random, own: Found) -> None:
    """Ask both for entities and relations; in batches the reference's depend on the neighbours."""
    model = nerlet.load(bundle, threads=1)
    for number in range(CALLS):
        texts, shared, of_each = draw_call(rng)
        calls = [
            {**shared, **{name: values[place] for name, values in of_each.items()}}
            for place in range(len(texts))
        ]
        limits = [draw_limits(oracle, *both, rng) for both in zip(texts, calls, strict=True)]
        if number % 2:  # all from the one of entities
            limits = [{"threshold": own_limits["threshold"]} for own_limits in limits]
        of_each |= {name: [each[name] for each in limits] for name in limits[0]}
        arguments: dict[str, Any] = {**shared, **of_each}
        entities, relations = model.inference([*texts, " \n"], **pad(arguments, of_each))
        assert not entities.pop()
        assert not relations.pop()
        for text, call, limit, *ours in zip(texts, calls, limits, entities, relations, strict=True):
            compare_text(oracle, text, {**call, **limit}, ours, own)


def pad(arguments: dict[str, Any], of_each: dict[str, list[Any]]) -> dict[str, Any]:
    """The arguments with one more value where there is one a text."""
    return {**arguments, **{name: [*values, values[0]] for name, values in of_each.items()}}


def compare_text(
    oracle: Any, text: str, given: dict[str, Any], ours: list[Any], own: Found
) -> None:
    (expected,), (related,) = oracle.inference([text], **given)
    problem = find_difference(ours[0], expected)
    if problem and is_noise(given["threshold"], ours[0], expected):
        own.excluded += 1
        return
    problem = problem or find_relation_difference(ours[1], related)
    if problem and is_relation_noise(oracle, text, given, related):
        own.excluded += 1
        return
    own.texts += bool(text.strip())
    own.entities += len(expected)
    own.relations += len(related)
    own.differences += [f"{text!r}, {given}: {problem}"] if problem else []


def relation_key(relation: Any) -> tuple[Any, ...]:
    ends = [tuple(relation[end].items()) for end in ("head", "tail")]
    return tuple(relation), *ends, relation["relation"]


def find_relation_difference(ours: Any, oracle: Any) -> str:
    """What differs in keys, ends, names, order or scores; empty if nothing."""
    if list(map(relation_key, ours)) != list(map(relation_key, oracle)):
        return f"{len(ours)} relations, {len(oracle)} expected: {ours[:2]} != {oracle[:2]}"
    apart = [abs(a["score"] - b["score"]) for a, b in zip(ours, oracle, strict=True)]
    return "" if not apart or max(apart) <= TOLERANCE else f"scores differ by {max(apart)}"


def is_relation_noise(oracle: Any, text: str, given: dict[str, Any], related: Any) -> bool:
    """Whether the oracle's relations are others where a threshold is a little another."""
    names = ("threshold", "adjacency_threshold", "relation_threshold")
    limits = {name: given.get(name, given["threshold"]) for name in names}
    for name, limit in limits.items():
        for nudge in (-NUDGE, NUDGE):
            changed = {**given, **limits, name: limit + nudge}
            (_,), (other,) = oracle.inference([text], **changed)
            if list(map(relation_key, other)) != list(map(relation_key, related)):
                return True
    return False


@ANY_CELL
def test_entities_pairs_and_relations_are_the_references(found, key):
    own = found(key)
    assert own.difference <= LOGIT_TOLERANCE
    assert not own.differences, f"{len(own.differences)}: {own.differences[0]}"
    assert own.pairs > 10
    assert own.entities > 10


def test_every_cell_was_compared(found):
    """Much was compared and little left out."""
    all_found = {key: found(key) for key in CELLS}
    texts = sum(own.texts for own in all_found.values())
    relations = sum(own.relations for own in all_found.values())
    print(  # noqa: T201  # the figures of a run, shown with pytest -s
        f"{len(CELLS)} cells, {texts} texts, {relations} relations, "
        f"{sum(own.logits for own in all_found.values())} logits of entities, "
        f"{sum(own.pairs for own in all_found.values())} pairs, "
        f"{sum(own.scores for own in all_found.values())} logits of relations, "
        f"largest difference {max(own.difference for own in all_found.values()):.1e}, "
        f"{sum(own.entities for own in all_found.values())} entities, "
        f"{sum(own.excluded for own in all_found.values())} texts left out"
    )
    verified = [key for key in (*RELEX_STATUS, *LAYER_STATUS) if key in CELLS]
    assert [key for key, own in all_found.items() if own.relations > 5] == verified
    assert sum(own.excluded for own in all_found.values()) <= 0.01 * texts
    assert relations > 100 * len(CELLS)


@pytest.mark.parametrize("layer", ["TuckER", "ConvE"])
def test_layers_that_do_not_work_in_the_reference_are_refused(tmp_path, layer):
    assert LAYER_STATUS["triples_layer", layer] == REFUSED
    model = make_relation_reference(tmp_path / "encoder", encoder="bert")
    model.config.triples_layer = layer
    model.save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(BundleError, match=f"triples_layer is '{layer}': the reference"):
        convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32")

"""Is the graph of a joint model the model? Entities, pairs and the logits of relations must agree.

Thresholds are chosen batch by batch, so that there are entities and pairs to compare whatever the
model finds in drawn texts, and where no score is near: what is chosen is then no matter of noise.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nerlet.errors import GraphError
from nerlet.scores import sigmoid
from nerlet_export import verify
from nerlet_export.checkpoint import Checkpoint
from nerlet_export.graph import output_ports
from nerlet_export.onnx_graph import OnnxGraph
from nerlet_export.relation_model import RelationModel, find_token_spans
from nerlet_export.samples import Sample, draw_sample

Floats = NDArray[np.float32]
Feeds = dict[str, NDArray[np.generic]]
_ENTITIES = 12  # of a batch, about
_PAIR_SHARE = 0.5  # of all pairs
_APART = 1e-4  # scores that differ by less may change their order from PyTorch to the graph


@dataclass(frozen=True, slots=True)
class RelationReport:
    """Float graph against PyTorch.

    Attributes:
        max_difference: Largest difference of a relation's logit.
        tolerance: What was allowed there.
        pairs: Pairs of entities, chosen alike by both.
        cells: Logits compared.
    """

    max_difference: float
    tolerance: float
    pairs: int
    cells: int


def compare_relations(checkpoint: Checkpoint, graph: OnnxGraph) -> RelationReport:
    """Compare a joint model's float graph with PyTorch on ragged batches.

    Raises:
        GraphError: Other entities or pairs, or a logit that differs by more than `verify` allows.
    """
    session = verify.open_session(graph)
    names = list(output_ports(checkpoint.model.config))[1:]
    worst, tolerance, pairs, cells = 0.0, verify.FLOAT_ATOL, 0, 0
    for seed in range(verify.BATCHES):
        sample = draw_sample(checkpoint, seed=seed + 1, size=1 + seed % 3)
        feeds = _choose_thresholds(checkpoint, sample)
        expected = dict(zip(names, verify.run_torch_whole(checkpoint, feeds)[1:], strict=True))
        found = dict(zip(names, session.run(names, feeds), strict=True))
        for name in ("rel_idx", "rel_mask", "entity_spans"):
            if not np.array_equal(found[name], expected[name]):
                raise GraphError(
                    f"the float graph differs from PyTorch: {name} is not the same (batch {seed}); "
                    "the graph is not written"
                )
        known = _known_relations(sample, expected["rel_mask"])
        difference = np.abs(found["rel_logits"] - expected["rel_logits"])[known]
        allowed = verify.FLOAT_ATOL + verify.FLOAT_RTOL * np.abs(expected["rel_logits"])[known]
        if not len(difference):
            continue
        place = int((difference - allowed).argmax())
        if not difference[place] <= allowed[place]:
            raise GraphError(
                f"the float graph differs from PyTorch: a relation's logit by "
                f"{difference[place]:.2e}, allowed {allowed[place]:.2e} (batch {seed}); the graph "
                "is not written"
            )
        top = int(difference.argmax())
        if difference[top] >= worst:
            worst, tolerance = float(difference[top]), float(allowed[top])
        pairs, cells = pairs + int(expected["rel_mask"].sum()), cells + len(difference)
    return RelationReport(worst, tolerance, pairs, cells)


def _choose_thresholds(checkpoint: Checkpoint, sample: Sample) -> Feeds:
    """The tensors of a sample with thresholds that choose some entities and pairs."""
    feeds: Feeds = {**sample.feeds}
    logits = verify.run_torch_whole(checkpoint, feeds)[0]
    scores = sigmoid(logits)
    if sample.is_of_spans:
        scores = scores.max(-1)[sample.feeds["span_mask"].reshape(scores.shape[:3]) > 0]
        feeds["threshold"] = choose_limit(
            scores, _ENTITIES, lambda limit: int((scores > limit).sum())
        )
    else:
        feeds["threshold"] = choose_limit(
            scores,
            _ENTITIES,
            lambda limit: int(find_token_spans(torch.from_numpy(logits), limit).sum()),
        )
    model = checkpoint.model
    if isinstance(model, RelationModel) and model.relations.adjacency is not None:
        pairs = _score_pairs(model, feeds)
        count = int(_PAIR_SHARE * len(pairs))
        feeds["adjacency_threshold"] = choose_limit(
            pairs, count, lambda limit: int((pairs > limit).sum())
        )
    return feeds


def _score_pairs(model: RelationModel, feeds: Feeds) -> Floats:
    """The scores of the relations layer that choose pairs."""
    kept: list[torch.Tensor] = []
    hook = model.relations.adjacency.register_forward_hook(  # type: ignore[union-attr]
        lambda _module, _inputs, scores: kept.append(scores)
    )
    try:
        with torch.inference_mode():
            model(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    finally:
        hook.remove()
    found: Floats = kept[0].numpy().ravel()
    return found[found > 0]


def choose_limit(scores: Floats, wanted: int, count: Callable[[float], int]) -> NDArray[np.float32]:
    """Choose a threshold between two scores that lets about as many through as wanted.

    Args:
        scores: All that are compared with it.
        wanted: How many.
        count: How many a threshold chooses; it grows as that falls.
    """
    ordered = np.sort(scores, axis=None)[::-1].astype(np.float64)
    if not len(ordered):
        return np.array(0.5, dtype=np.float32)
    is_apart = ordered[:-1] - ordered[1:] > _APART
    limits = ((ordered[:-1] + ordered[1:]) / 2)[is_apart].tolist()
    limits.append(float(ordered[-1]) - _APART)  # all of them
    place = bisect_left(range(len(limits) - 1), wanted, key=lambda own: count(limits[own]))
    return np.array(limits[place], dtype=np.float32)


def _known_relations(sample: Sample, is_pair: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which cells of relations' logits mean something, (B, P, R)."""
    counts = np.array([len(own) for own in sample.relations])
    is_relation = np.arange(counts.max()) < counts[:, None]  # (B, R)
    known: NDArray[np.bool_] = is_pair[:, :, None] & is_relation[:, None]
    return known

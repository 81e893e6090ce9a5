"""Seeded random joint models of the reference, small, and lively in entities and relations."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gliner
import numpy as np
import pytest
import torch

from nerlet_export.config import TOKEN_LEVEL
from tests.export.reference_models import (
    LOGIT_DEVIATION,
    MAX_LEN,
    MAX_WIDTH,
    draw_weights,
    reference_logits,
    scale_logits,
    write_encoder,
)

WIDTH = 16
_PROBES = ("the cat sat on a mat", "10 % of x-ray", "Bill Gates founded Microsoft in Paris in 1975")
_LABELS = ["person", "date", "x-y_z"]
_RELATIONS = ["likes", "works for", "of"]
DISTANCES = ("UM", "SE", "TransE", "TransH", "TransF", "PairRE", "TripleRE")
OUTPUTS = ("logits", "rel_idx", "rel_logits", "rel_mask", "entity_spans")


def make_relation_reference(
    folder: Path,
    *,
    encoder: str,
    span_mode: str = "markerV0",
    relations_layer: str = "mlp",
    triples_layer: str | None = None,
    has_rnn: bool = False,
    seed: int = 0,
    words: Sequence[str] = (),
) -> Any:
    """Make a joint reference model over an encoder folder, which is written too."""
    source = write_encoder(folder, encoder, words)
    torch.manual_seed(seed)
    config = {
        "model_name": str(source),
        "span_mode": span_mode,
        "hidden_size": WIDTH,
        "num_rnn_layers": int(has_rnn),
        "max_width": MAX_WIDTH,
        "max_len": MAX_LEN,
        "relations_layer": relations_layer,
        "triples_layer": triples_layer,
        **dict.fromkeys(("class_token_index", "rel_token_index", "vocab_size"), -1),
    }
    with narrow_triples():
        model = gliner.GLiNER.from_config(config, backbone_from_pretrained=False)
    with torch.no_grad():
        draw_weights(model)
        if triples_layer in DISTANCES:  # at most 10, where small vectors are apart by a few
            norm = model.model.token_rep_layer.bert_layer.model.encoder.layer[-1].output.LayerNorm
            norm.weight.mul_(0.1)
            norm.bias.mul_(0.1)
        with _without_relations(model):
            if span_mode == TOKEN_LEVEL:
                _scale_tokens(model)
            else:
                scale_logits(model)
        _scale_relations(model)
    return model


@contextmanager
def _without_relations(model: Any) -> Iterator[None]:
    """Take the layers of relations out for a while: some fail where no relation is asked for."""
    names = ("relations_rep_layer", "triples_score_layer", "pair_rep_layer")
    layers = {name: model.model._modules.pop(name, None) for name in names}
    yield
    model.model._modules.update({name: own for name, own in layers.items() if own is not None})


@contextmanager
def narrow_triples() -> Iterator[None]:
    """Let the reference make its triples layers as wide as the model, and not 768 as it does."""
    with pytest.MonkeyPatch.context() as patch:
        base = gliner.modeling.base
        patch.setattr(base, "TriplesScoreLayer", partial(base.TriplesScoreLayer, dim=WIDTH))
        yield


def run_relations(
    model: Any,
    texts: Sequence[str],
    labels: Sequence[Sequence[str]],
    relations: Sequence[Sequence[str]],
    *,
    threshold: float,
    adjacency_threshold: float,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The reference's own tensors of a batch, by graph input, and its outputs by name."""
    prepared = model.prepare_batch(
        list(texts), list(map(list, labels)), relations=list(map(list, relations))
    )
    batch = model.collate_batch(
        prepared["input_x"], prepared["entity_types"], None, prepared["relation_types"]
    )
    output = model.run_batch(batch, threshold=threshold, adjacency_threshold=adjacency_threshold)
    feeds = {name: np.asarray(own) for name, own in batch.items() if isinstance(own, torch.Tensor)}
    return feeds, {name: np.asarray(getattr(output, name)) for name in OUTPUTS}


def _scale_tokens(model: Any) -> None:
    """Centre and scale the logits of start, end and inside."""
    last = model.model.scorer.out_mlp[-1]
    logits = torch.cat(
        [reference_logits(model, [text], _LABELS)[0].flatten(0, 1) for text in _PROBES]
    )
    scale = LOGIT_DEVIATION / logits.std(0)
    last.bias.copy_((last.bias - logits.mean(0)) * scale)
    last.weight.mul_(scale[:, None])
    last.bias[2] += 2.0  # spans of several words


def _scale_relations(model: Any) -> None:
    """Scale vectors of entities, and what follows, until scores of pairs and relations differ."""
    core = model.model
    own = _pair_layer(model)
    for name in ("proj", "linear"):
        for parameter in getattr(own, name, torch.nn.Identity()).parameters():
            parameter.mul_(0.3)
    is_projected = hasattr(core, "pair_rep_layer")
    if not is_projected or model.config.relations_layer == "dot":
        for _ in range(5):
            pairs, logits = _probe_relations(model)
            measured = pairs.logit(1e-6) if is_projected else logits
            factor = float((LOGIT_DEVIATION / measured.std()).clamp(0.3, 3)) ** 0.5
            is_far = model.config.triples_layer in DISTANCES and logits.median() < -7
            _scale_vectors(core, 0.5 if is_far else factor)
    if hasattr(own, "mlp"):
        _scale_mlp(model, own.mlp[-1])
    if is_projected:
        scale = LOGIT_DEVIATION / _probe_relations(model)[1].std()
        for parameter in core.pair_rep_layer[-1].parameters():
            parameter.mul_(scale)


def _scale_mlp(model: Any, last: Any) -> None:
    """Centre and scale the logits of pairs by the last layer of what makes them."""
    for _ in range(3):
        logits = _probe_relations(model)[0].logit(1e-6)
        scale = (LOGIT_DEVIATION / logits.std()).clamp(0.3, 3)
        last.bias.copy_((last.bias - logits.mean()) * scale)
        last.weight.mul_(scale)


def _pair_layer(model: Any) -> Any:
    """What scores pairs of entities, or a layer that does nothing."""
    layer = getattr(model.model, "relations_rep_layer", None)
    return layer.relation_rep_layer if layer is not None else torch.nn.Identity()


def _scale_vectors(core: Any, factor: float) -> None:
    """Scale the vectors of spans, and those of labels by the inverse."""
    *_, last = core.span_rep_layer.span_rep_layer.out_project.modules()
    for parameter in last.parameters():
        parameter.mul_(factor)
    if core.config.span_mode != TOKEN_LEVEL:
        for parameter in core.prompt_rep_layer[-1].parameters():
            parameter.div_(factor)


def _probe_relations(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores of pairs in some texts, each alone, and the logits of their relations."""
    found = [probe_relations(model, [text], [_LABELS], [_RELATIONS], 0.1) for text in _PROBES]
    pairs, logits = zip(*found, strict=True)
    return torch.from_numpy(np.concatenate(pairs)), torch.from_numpy(np.concatenate(logits))


def probe_relations(
    model: Any,
    texts: Sequence[str],
    labels: Sequence[Sequence[str]],
    relations: Sequence[Sequence[str]],
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of all pairs of entities in a batch, and the logits of their relations."""
    pairs = [np.zeros(0, dtype=np.float32)]
    hook = _pair_layer(model).register_forward_hook(
        lambda _module, _inputs, scores: pairs.append(scores.numpy().ravel())
    )
    _, found = run_relations(
        model, texts, labels, relations, threshold=threshold, adjacency_threshold=-1.0
    )
    hook.remove()
    scores = np.concatenate(pairs)
    return scores[scores > 0], found["rel_logits"][found["rel_mask"]].ravel()

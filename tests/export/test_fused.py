"""Encoders in their fast form give what transformers gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nerlet_export.fused import fuse
from nerlet_export.graph import build_graph
from nerlet_export.model import SpanModel
from nerlet_export.tiny import make_checkpoint
from nerlet_export.verify import open_session

# What differs between published DeBERTas, and what only the extremes of distances show
DEBERTAS = {
    "v3": {},
    "no buckets": {"position_buckets": -1},
    "short table": {"position_buckets": -1, "max_relative_positions": 7},
    "few buckets": {"position_buckets": 4, "max_relative_positions": 9},
    "own projections": {"share_att_key": False},
    "no norm": {"norm_rel_ebd": "none"},
}


def model_of(encoder="bert", **changes):
    checkpoint = make_checkpoint(encoder)
    config = checkpoint.model.config
    torch.manual_seed(1)
    model = SpanModel(replace(config, encoder={**config.encoder, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.3)
    return replace(checkpoint, model=model)


def encode(model, size, lengths):
    generator = torch.Generator().manual_seed(size)
    ids = torch.randint(10, 80, (len(lengths), size), generator=generator)
    mask = (torch.arange(size) < torch.tensor(lengths)[:, None]).to(torch.int64)
    with torch.no_grad():
        return model.encoder(ids, mask, None).numpy(), mask.numpy() > 0


def check_fused(model, size):
    """A padded batch gives what transformers gives, up to rounding."""
    lengths = [size, max(1, size - 3)]
    expected, seen = encode(model, size, lengths)
    found, _ = encode(fuse(model), size, lengths)
    np.testing.assert_allclose(found[seen], expected[seen], atol=2e-5)
    assert expected[seen].std() > 0.1


@pytest.mark.parametrize("changes", DEBERTAS.values(), ids=DEBERTAS)
@pytest.mark.parametrize("size", [2, 5, 40])
def test_deberta_attends_as_transformers_does(changes, size):
    check_fused(model_of("deberta-v2", **changes).model, size)


def test_bert_attends_as_transformers_does():
    model = model_of().model
    expected, seen = encode(fuse(model), 30, [30, 17, 3])
    ids = torch.randint(10, 80, (3, 30), generator=torch.Generator().manual_seed(30))
    with torch.no_grad():
        hf = model.encoder.model(input_ids=ids, attention_mask=torch.from_numpy(seen).long())
    np.testing.assert_allclose(expected[seen], hf[0].numpy()[seen], atol=2e-5)


@pytest.mark.parametrize(
    "encoder", ["mpnet", "roberta", "xlm-roberta", "electra", "modernbert", "t5"]
)
@pytest.mark.parametrize("size", [2, 5, 200])
def test_other_encoders_attend_as_transformers_does(encoder, size):
    check_fused(model_of(encoder).model, size)


def test_an_encoder_with_relative_keys_stays_as_it_is():
    model = model_of("roberta", position_embedding_type="relative_key").model
    kinds = {type(module).__name__ for module in fuse(model).modules()}
    assert "BertAttention" not in kinds


def test_a_deberta_with_one_position_term_stays_as_it_is():
    model = model_of("deberta-v2", pos_att_type=["c2p"]).model
    expected, seen = encode(model, 9, [9, 5])
    np.testing.assert_array_equal(encode(fuse(model), 9, [9, 5])[0][seen], expected[seen])


@pytest.mark.parametrize(
    "encoder", ["bert", "deberta-v2", "mpnet", "roberta", "electra", "modernbert", "t5"]
)
def test_attention_is_one_operator(encoder):
    checkpoint = model_of(encoder)
    graph = build_graph(checkpoint)
    kinds = [node.op_type for node in graph.model.graph.node]
    assert kinds.count("MultiHeadAttention") == 2
    assert "Softmax" not in kinds
    assert open_session(graph).get_providers() == ["CPUExecutionProvider"]

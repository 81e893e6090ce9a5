"""Span heads alone: folded, they give what the reference's layers give, whatever the padding."""

import numpy as np
import pytest
import torch
from gliner.modeling.span_rep import SpanRepLayer
from torch import Tensor

from nerlet_export.config import ModelConfig
from nerlet_export.graph import build_graph
from nerlet_export.heads import HEADS
from nerlet_export.onnx_graph import OnnxGraph
from nerlet_export.predict import TorchPredictor
from nerlet_export.quantize import quantize_graph
from nerlet_export.samples import draw_sample
from nerlet_export.span_heads import SpanHead
from nerlet_export.tiny import make_checkpoint
from nerlet_export.verify import known_cells, open_session, run_graph, run_torch
from tests.export.matrix import SPAN_MODES

D, K = 12, 5
ANY_MODE = pytest.mark.parametrize("mode", SPAN_MODES)


def make_heads(mode: str, width: int) -> tuple[torch.nn.Module, SpanHead]:
    """A head of the reference and ours, of the same weights."""
    torch.manual_seed(0)
    theirs = SpanRepLayer(D, width, mode, dropout=0.4).span_rep_layer.eval()
    config = ModelConfig(
        "toy", encoder={}, hidden_size=D, max_width=width, span_mode=mode, dropout=0.4
    )
    ours = HEADS[mode](config).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def draw_words(lengths: list[int]) -> Tensor:
    """Words, zeros past each text as the reference has them: (B, L, D)."""
    words = torch.randn(len(lengths), max(lengths), D, generator=torch.Generator().manual_seed(1))
    return words * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])[..., None]


def score_as_the_reference(head: torch.nn.Module, words: Tensor, q: Tensor, width: int) -> Tensor:
    """Logits (B, L, K, C) of spans inside the batch; its markers ask for their places."""
    B, L = words.shape[:2]
    starts = torch.arange(L).repeat_interleave(width)
    ends = (starts + torch.arange(width).repeat(L)).clamp(max=L - 1)
    places = torch.stack([starts, ends], dim=-1).expand(B, -1, -1)
    return torch.einsum("blkd,bcd->blkc", head(words, places), q)


@ANY_MODE
@pytest.mark.parametrize("width", [1, 2, K])
def test_a_folded_head_is_the_references(mode, width):
    theirs, ours = make_heads(mode, width)
    lengths = [7, 3, 1]
    words, q = draw_words(lengths), torch.randn(3, 4, D)
    with torch.no_grad():
        expected = score_as_the_reference(theirs, words, q, width)
        noise = torch.where(words == 0, 5.0, words)  # ours: anything past a text
        directions, offsets = ours.fold(q)
        scored = ours.score(noise, torch.tensor(lengths), directions)
    found = torch.stack(scored, dim=2) + offsets[:, None, None]
    assert found.shape == expected.shape == (3, 7, width, 4)
    ends = torch.arange(7)[:, None] + torch.arange(width)
    inside = ends < torch.tensor(lengths)[:, None, None]  # (B, L, K)
    assert expected[inside].std() > 0.01
    torch.testing.assert_close(found[inside], expected[inside], atol=1e-5, rtol=1e-5)


@ANY_MODE
def test_only_two_heads_of_the_reference_see_padding(mode):
    """In these the scores of a text depend on the longest of its batch, and ours say so."""
    theirs, ours = make_heads(mode, K)
    alone, padded = draw_words([4]), draw_words([4, 9])
    padded[0, :4] = alone[0]
    q = torch.randn(1, 2, D)
    with torch.no_grad():
        one = score_as_the_reference(theirs, alone, q, K)
        two = score_as_the_reference(theirs, padded, q.expand(2, -1, -1), K)
    inside = torch.arange(4)[:, None] + torch.arange(K) < 4
    sees_padding = not torch.allclose(one[0][inside], two[0, :4][inside], atol=1e-5)
    assert sees_padding == ours.sees_padding == (mode in ("markerV1", "markerV2"))


@pytest.mark.parametrize("mode", ["markerV0", "markerV1", "markerV2"])
def test_pytorch_predicts_a_text_the_same_among_others(mode):
    checkpoint = make_checkpoint("bert", span_mode=mode)
    predict = TorchPredictor(checkpoint, threshold=0.0)
    sentences = [["Ada", "wrote"], ["On", "Monday", "the", "U.S.", "bought", "three", "cats"]]
    together = predict(sentences, ["person", "city"])
    alone = [predict([own], ["person", "city"])[0] for own in sentences]
    for one, other in zip(together, alone, strict=True):
        assert [(s.start, s.end, s.label) for s in one] == [
            (s.start, s.end, s.label) for s in other
        ]
        assert [s.score for s in one] == pytest.approx([s.score for s in other], abs=1e-5)
    assert together[0]


def float_matrices(graph: OnnxGraph) -> list[str]:
    """Constant float matrices that a product reads."""
    weights = {
        name for name, own in graph.weights.items() if own.dtype == np.float32 and own.ndim > 1
    }
    nodes = graph.model.graph.node
    products = [node for node in nodes if node.op_type in ("MatMul", "Gemm", "Conv")]
    return [name for node in products for name in node.input[1:] if name in weights]


@ANY_MODE
def test_all_weights_of_a_head_become_int8(mode):
    checkpoint = make_checkpoint("bert", span_mode=mode)
    graph = build_graph(checkpoint)
    quantised = quantize_graph(graph)
    assert len(float_matrices(graph)) >= 10
    assert float_matrices(quantised) == []
    sample = draw_sample(checkpoint, seed=5, size=3)
    known = known_cells(sample)
    expected = run_torch(checkpoint, sample.feeds)[known]
    exact, rough = (run_graph(open_session(own), sample.feeds)[known] for own in (graph, quantised))
    np.testing.assert_allclose(exact, expected, atol=1e-4, rtol=1e-5)
    error = np.sqrt(np.mean((rough - expected) ** 2)) / expected.std()
    assert 0 < error < 0.35

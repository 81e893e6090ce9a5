"""Span heads of a first word and a width: words and folded labels -> logits of all spans.

As in `span_heads`, a logit is z . d + o, and a last linear layer is folded into d and o:

* conv_max, conv_mean, conv_sum, conv_share: z of a span is made from that of the span one shorter;
* cat: what the words have and what the widths have are projected apart;
* query, mlp, conv_conv: weights of their own for every width, in the reference's form.

Parameter names are the reference's (gliner 0.2.29).

Axes: B texts, L words, K widths, C labels, D width, H width of z.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nerlet_export.config import ModelConfig
from nerlet_export.span_heads import SpanHead, shift

_QUERY_WIDTH = 128  # of "cat", whichever width the words have


class WidthHead(SpanHead):
    """Heads that make the vectors of all spans of a width together."""

    def by_width(self, words: Tensor) -> Iterator[Tensor]:
        """Make z of the spans that start at each of words (B, L, D): (B, L, H), K times."""
        raise NotImplementedError

    def score(self, words: Tensor, lengths: Tensor, directions: Tensor) -> list[Tensor]:  # noqa: ARG002
        """Score all spans, those of each width together."""
        columns = directions.transpose(1, 2)  # (B, H, C)
        return [own @ columns for own in self.by_width(words)]


class QuerySpanHead(WidthHead):
    """A word times a vector of the width, projected."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        self.query_seg = nn.Parameter(torch.empty(D, config.max_width).uniform_(-1, 1))
        self.project = nn.Sequential(nn.Linear(D, D), nn.ReLU())

    def by_width(self, words: Tensor) -> Iterator[Tensor]:
        """Make the vectors of each width's spans."""
        return (self.project(words * query) for query in self.query_seg.unbind(1))


class MlpSpanHead(WidthHead):
    """A layer of its own for each width, over the first word alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.mlp = nn.Linear(config.hidden_size, config.hidden_size * config.max_width)

    def by_width(self, words: Tensor) -> Iterator[Tensor]:
        """Make the vectors of each width's spans."""
        layers = zip(*(own.chunk(self.max_width) for own in self.mlp.parameters()), strict=True)
        return (F.relu(F.linear(words, weight, bias)) for weight, bias in layers)


class CatSpanHead(WidthHead):
    """A layer over [h_i; the width's vector]: a part of the word plus one of the width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        self.query_seg = nn.Parameter(torch.randn(_QUERY_WIDTH, config.max_width))
        self.project = nn.Sequential(nn.Linear(D + _QUERY_WIDTH, D), nn.ReLU())

    def by_width(self, words: Tensor) -> Iterator[Tensor]:
        """Make the vectors of each width's spans."""
        layer = cast(nn.Linear, self.project[0])
        of_word, of_width = layer.weight.split((words.shape[-1], _QUERY_WIDTH), dim=1)
        # Not transposed: the reference reads the numbers of the table in rows of 128
        queries = self.query_seg.view(self.max_width, _QUERY_WIDTH)
        own = F.linear(words, of_word)  # (B, L, D)
        parts = F.linear(queries, of_width, layer.bias).unbind(0)  # (D,) each
        return (F.relu(own + part) for part in parts)


class ConvHead(WidthHead):
    """Heads whose z is the ReLU of what a window of words gives, under a last layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.project = nn.Sequential(nn.ReLU(), nn.Linear(config.hidden_size, config.hidden_size))

    @property
    def last(self) -> nn.Linear:
        """The layer that the head ends in."""
        return cast(nn.Linear, self.project[1])

    def windows(self, seen: Iterator[Tensor]) -> Iterator[Tensor]:
        """Make one vector of each window, K times (B, L, D).

        Args:
            seen: The first word of each window, the next, and so on, K times (B, L, D).
        """
        raise NotImplementedError

    def by_width(self, words: Tensor) -> Iterator[Tensor]:
        """Make the vectors of each width's spans."""
        return map(F.relu, self.windows(shift(words, self.max_width)))


class ConvSpanHead(ConvHead):
    """conv_conv: a convolution of its own for each width but the first, which takes the word."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        self.convs = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv1d(D, D, width)})
            for width in range(2, config.max_width + 1)
        )

    def windows(self, seen: Iterator[Tensor]) -> Iterator[Tensor]:
        """Convolve, as one product of each window's words side by side."""
        own = list(seen)
        yield own[0]
        for width, block in enumerate(self.convs, 2):
            conv = cast(nn.Conv1d, cast(nn.ModuleDict, block)["conv"])
            weight = conv.weight.transpose(1, 2).flatten(1)  # (D, width * D)
            yield F.linear(torch.cat(own[:width], dim=-1), weight, conv.bias)


class PoolSpanHead(ConvHead):
    """conv_max, conv_mean, conv_sum: the window's largest, mean or sum."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.is_mean = config.span_mode == "conv_mean"
        self.join: Callable[[Tensor, Tensor], Tensor] = (
            torch.maximum if config.span_mode == "conv_max" else torch.add
        )

    def windows(self, seen: Iterator[Tensor]) -> Iterator[Tensor]:
        """Pool, each window from the one that is shorter by a word."""
        pooled = accumulate(seen, self.join)
        if not self.is_mean:
            return pooled
        return (own / width for width, own in enumerate(pooled, 1))


class ConvShareSpanHead(ConvHead):
    """conv_share: one convolution, of which a window takes as many columns as it has words."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        weight = torch.empty(D, D, config.max_width)
        nn.init.kaiming_uniform_(weight, nonlinearity="relu")
        self.conv_weigth = nn.Parameter(weight)  # the reference's spelling

    def windows(self, seen: Iterator[Tensor]) -> Iterator[Tensor]:
        """Convolve, each window from the one that is shorter by a word."""
        return accumulate(map(F.linear, seen, self.conv_weigth.unbind(2)))

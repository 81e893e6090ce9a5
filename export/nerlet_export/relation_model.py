"""The joint entity and relation model: prompts -> logits, pairs of entities, and their relations.

Spans that score above a threshold are the text's entities. Their vectors go through the relations
layer, which scores every pair (`relation_layers`); the pairs above another threshold are scored for
every relation of the prompt (`triples_layers`). Both thresholds are inputs.

Axes: B texts, L words, K widths, T pieces, C labels, R relations, E entities, P pairs, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nerlet_export.config import ModelConfig
from nerlet_export.heads import Heads, WordReader
from nerlet_export.model import Model, count_from_one, gather_rows, gather_words
from nerlet_export.relation_layers import LAYERS as RELATION_LAYERS
from nerlet_export.relation_layers import Adjacency
from nerlet_export.relation_spans import finish, read_spans
from nerlet_export.span_heads import MarkerV0SpanHead, TwoLayers
from nerlet_export.token_heads import TokenScorer
from nerlet_export.triples_layers import LAYERS as TRIPLES_LAYERS
from nerlet_export.triples_layers import PairProjection, Triples

# Logits; entities of each pair, scores for each relation, which pairs there are; entities' borders
Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class TokenRelationHeads(WordReader):
    """Everything above the encoder of a token-level joint model, but its relations.

    Unlike in one without relations, labels are projected before they meet the words.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        self.span = MarkerV0SpanHead(config)
        self.label = TwoLayers(D, 4 * D, D, config.dropout)
        self.scorer = TokenScorer(config)


class Relations(nn.Module):
    """Entities and relations -> the pairs of entities and their scores for each relation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, name = config.hidden_size, config.relations_layer.lower()
        self.adjacency: Adjacency | None = None if name == "none" else RELATION_LAYERS[name](D)
        self.triples: Triples = (
            TRIPLES_LAYERS[config.triples_layer](D)
            if config.triples_layer
            else PairProjection(config)
        )

    def forward(
        self, entities: Tensor, is_entity: Tensor, relations: Tensor, threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose pairs and score them.

        Args:
            entities: (B, E, D).
            is_entity: Which of them are, not padding, bool, (B, E).
            relations: (B, R, D).
            threshold: Above which a pair is chosen, ().

        Returns:
            First and second entity of each pair, int64, (B, P, 2), -1 where there is none; logits,
            (B, P, R); which pairs there are, bool, (B, P).
        """
        if self.adjacency is None:
            is_pair = is_entity[:, :, None] & is_entity[:, None]
        else:
            is_pair = self.adjacency(entities, is_entity) > threshold  # (B, E, E)
        place = torch.arange(is_pair.shape[1], device=is_pair.device)
        pairs, is_chosen = pack(is_pair & (place[:, None] != place))  # (B, P, 2), (B, P)
        heads, tails = gather_rows(entities, pairs[..., 0]), gather_rows(entities, pairs[..., 1])
        logits = self.triples(heads, tails, relations)
        return torch.where(is_chosen[..., None], pairs, -1), logits, is_chosen


class RelationModel(Model):
    """What both kinds of joint model have in common.

    Source: gliner 0.2.29, `UniEncoderSpanRelexModel` and `UniEncoderTokenRelexModel`.
    """

    heads: WordReader

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.relations = Relations(config)

    def pool_relations(self, hidden: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take each relation's vector from its marker: (B, T, D) -> (B, R, D), padded by zeros."""
        is_marker = (input_ids == self.config.rel_token_index) & (attention_mask > 0)  # (B, T)
        counts = is_marker.to(torch.int64).cumsum(1)
        numbers = count_from_one(counts.max(), hidden.device)
        is_own = is_marker[:, None] & (counts[:, None] == numbers[:, None])  # (B, R, T)
        return is_own.to(hidden.dtype) @ hidden

    def read_words(
        self, hidden: Tensor, words_mask: Tensor, lengths: Tensor, L: int | Tensor
    ) -> Tensor:
        """Take words from their first pieces, (B, L, D), zeros past each text as the reference."""
        words = gather_words(hidden, words_mask, L)
        is_word = torch.arange(words.shape[1], device=words.device) < lengths[:, None]  # (B, L)
        return self.heads.read_words(words * is_word[..., None].to(words.dtype), lengths)


class SpanRelationModel(RelationModel):
    """Whose entities are spans of up to `max_width` words."""

    heads: Heads

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.heads = Heads(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        words_mask: Tensor,
        text_lengths: Tensor,
        span_idx: Tensor,
        span_mask: Tensor,
        threshold: Tensor | float = 0.5,
        adjacency_threshold: Tensor | float = 0.5,
    ) -> Outputs:
        """Score padded prompts; the reference's inputs and outputs.

        Args:
            input_ids: As in `SpanModel.forward`, and so are the other tensors.
            attention_mask: 1 for a piece.
            words_mask: n at the first piece of the n-th word.
            text_lengths: Words of each text.
            span_idx: First and last word of each span; only its size is read.
            span_mask: Whether a span lies inside its text: no other is an entity.
            threshold: Spans with a label that scores above it are entities, ().
            adjacency_threshold: As in `Relations.forward`, ().

        Returns:
            `logits`, (B, L, K, C), as those of a model without relations; `rel_idx`, `rel_logits`
            and `rel_mask` as `Relations.forward` has them; `entity_spans`, first and last word of
            each entity, int64, (B, E, 2). There is one entity and one pair at least, be it padding.
        """
        hidden = self.encoder(input_ids, attention_mask, None)  # (B, T, D)
        labels = self.pool_labels(hidden, input_ids, attention_mask)  # (B, C, D)
        directions, offsets = self.heads.fold_labels(labels)  # (B, C, H), (B, C)
        L, lengths = span_idx.shape[1] // self.config.max_width, text_lengths[:, 0]
        words = self.read_words(hidden, words_mask, lengths, L)
        scored, read = read_spans(self.heads.span, words, lengths, directions)
        logits = torch.cat(scored, dim=2).unflatten(2, (len(scored), -1)) + offsets[:, None, None]
        best = logits.amax(-1).sigmoid()  # (B, L, K)
        places, is_entity = pack((best > threshold) & span_mask.unflatten(1, (L, -1)))
        first = places[..., 0]
        last = first + places[..., 1]
        entities = finish(self.heads.span, read(first, last)) * is_entity[..., None]
        relations = self.pool_relations(hidden, input_ids, attention_mask)
        found = self.relations(entities, is_entity, relations, adjacency_threshold)
        return logits, *found, torch.stack([first, last], dim=-1)


class TokenRelationModel(RelationModel):
    """Whose entities are made of words that score as start, end and inside."""

    heads: TokenRelationHeads

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.heads = TokenRelationHeads(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        words_mask: Tensor,
        text_lengths: Tensor,
        threshold: Tensor | float = 0.5,
        adjacency_threshold: Tensor | float = 0.5,
    ) -> Outputs:
        """Score padded prompts; the reference's inputs and outputs.

        Args:
            input_ids: As in `SpanRelationModel.forward`, and so are the others.
            attention_mask: 1 for a piece.
            words_mask: n at the first piece of the n-th word.
            text_lengths: Words of each text.
            threshold: What a label's start, end and each word inside must score above, ().
            adjacency_threshold: Of pairs.

        Returns:
            As `SpanRelationModel.forward`, but `logits` are (B, L, C, 3), and a span is an entity
            once for each label that it has.
        """
        hidden = self.encoder(input_ids, attention_mask, None)  # (B, T, D)
        labels = self.heads.label(self.pool_labels(hidden, input_ids, attention_mask))
        lengths = text_lengths[:, 0]
        words = self.read_words(hidden, words_mask, lengths, lengths.max())
        logits = self.heads.scorer(words, labels)  # (B, L, C, 3)
        places, is_entity = pack(find_token_spans(logits, threshold))
        first, last = places[..., 0], places[..., 2]  # between them the label
        starts, ends = self.heads.span.endpoints(words, lengths)
        vectors = F.relu(gather_rows(starts, first) + gather_rows(ends, last))
        entities = finish(self.heads.span, vectors) * is_entity[..., None]
        relations = self.pool_relations(hidden, input_ids, attention_mask)
        found = self.relations(entities, is_entity, relations, adjacency_threshold)
        return logits, *found, torch.stack([first, last], dim=-1)


def make_relation_model(config: ModelConfig) -> RelationModel:
    """Make a joint model of the kind that its config says."""
    return TokenRelationModel(config) if config.is_token_level else SpanRelationModel(config)


def find_token_spans(logits: Tensor, threshold: Tensor | float) -> Tensor:
    """Which spans of which label start, end and go on above a threshold.

    Args:
        logits: Of start, end and inside, (B, L, C, 3).
        threshold: ().

    Returns:
        By first word, label and last word, bool, (B, L, C, L).
    """
    starts, ends, inside = (logits.sigmoid() > threshold).unbind(-1)  # (B, L, C) each
    # Words not inside, up to and with each one; a span without any begins where it ends
    outside = (~inside).to(torch.int32).cumsum(1)
    before = outside - (~inside).to(torch.int32)
    last = ends.transpose(1, 2)[:, None]  # (B, 1, C, L)
    is_whole = before[..., None] == outside.transpose(1, 2)[:, None]  # (B, L, C, L)
    place = torch.arange(logits.shape[1], device=logits.device)
    return starts[..., None] & last & is_whole & (place[:, None, None] <= place)


def pack(kept: Tensor) -> tuple[Tensor, Tensor]:
    """List what is kept in each text, in row-major order.

    Args:
        kept: Bool, (B, ...), of n more axes.

    Returns:
        Indices along those axes, int64, (B, N, n), zeros for padding, and which are no padding,
        bool, (B, N); N is the most of a text, at least 1.
    """
    counts = kept.flatten(1).to(torch.int64).sum(1)  # (B,)
    numbers = count_from_one(counts.max().clamp(min=1), kept.device)  # (N,)
    is_own = numbers <= counts[:, None]  # (B, N)
    before = counts.cumsum(0) - counts
    places = kept.nonzero()  # (M, 1 + n)
    places = torch.cat([places, places.new_zeros((1, kept.ndim))])  # for a text without any
    row = torch.where(is_own, before[:, None] + numbers - 1, 0)
    return places[row][..., 1:] * is_own[..., None], is_own

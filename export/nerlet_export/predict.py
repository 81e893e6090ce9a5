"""Predict with the PyTorch model, for F1 on dev during a run and for verification.

Words, candidates and decoding are the runtime's own; only the logits come from PyTorch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nerlet.batch import make_batch as make_tensors
from nerlet.bundle import find_positions
from nerlet.decode import Span, select_spans
from nerlet.entities import to_given_words
from nerlet.label_encoder import pad_pieces
from nerlet.prompt import build_prompt, count_fitting
from nerlet.scores import find_candidates
from nerlet.token_scores import find_token_candidates
from nerlet.words import word_shape
from nerlet_export.checkpoint import Checkpoint
from nerlet_export.data import Batch, Example, Layout, count_room, make_batch

# Pieces of text in one run: enough to fill the cores, little enough to stay small.
_RUN_PIECES = 2000


class TorchPredictor:
    """Words and labels to spans, as `nerlet.evaluate` asks for them."""

    def __init__(self, checkpoint: Checkpoint, *, threshold: float, nested: bool = False) -> None:
        self._model = checkpoint.span_model
        self._encoder = checkpoint.pieces
        self._layout = prompt_layout(checkpoint)
        self._threshold = threshold
        self._nested = nested

    def __call__(
        self, sentences: Sequence[Sequence[str]], labels: Sequence[str]
    ) -> list[list[Span]]:
        """Find the spans of each sentence, as far as the model takes it."""
        labels = list(dict.fromkeys(labels))
        pieces = dict(zip(labels, self._encoder.encode_units(labels), strict=True))
        found: list[list[Span]] = [[] for _ in sentences]
        examples: dict[int, tuple[Example, list[int]]] = {}
        room = count_room(self._layout, pieces.values())
        for index, words in enumerate(sentences):
            example, kept = self._read(words, labels, room)
            if example.words:
                examples[index] = (example, kept)
        order = sorted(examples, key=lambda index: examples[index][0].size)
        limit = 1 if self._model.heads.span.sees_padding else _RUN_PIECES
        for run in _runs(order, [examples[index][0].size for index in order], limit):
            batch = make_batch([examples[index][0] for index in run], pieces, self._layout)
            for index, spans in zip(run, self._spans(batch), strict=True):
                kept = examples[index][1]
                found[index] = [
                    Span(kept[s.start], kept[s.end - 1] + 1, s.label, s.score) for s in spans
                ]
        return found

    def _read(
        self, words: Sequence[str], labels: Sequence[str], room: int | None
    ) -> tuple[Example, list[int]]:
        """A sentence as pieces, cut as the runtime cuts it, and the index of each kept word."""
        pieces = self._encoder.encode_units(list(words)) if words else []
        kept = [index for index, own in enumerate(pieces) if own][: self._model.config.max_len]
        kept = kept[: count_fitting([len(pieces[index]) for index in kept], room)]
        return (
            Example([pieces[i] for i in kept], [word_shape(words[i]) for i in kept], labels),
            kept,
        )

    @torch.inference_mode()
    def _spans(self, batch: Batch) -> list[list[Span]]:
        model, K = self._model, self._model.config.max_width
        device = next(model.parameters()).device
        logits = model.score_batch(batch.to(device)).float().cpu().numpy()  # (B, S, C)
        logits = logits.reshape(len(logits), -1, K, logits.shape[-1])  # (B, L, K, C)
        found = []
        for row, length in zip(logits, batch.lengths.tolist(), strict=True):
            candidates = find_candidates(
                np.ascontiguousarray(row[:length]), threshold=self._threshold
            )
            found.append(select_spans(candidates, nested=self._nested, multi_label=False))
        return found


class SentencePredictor:
    """The same of a token-level model or a bi-encoder, one sentence after the other."""

    def __init__(self, checkpoint: Checkpoint, *, threshold: float, nested: bool = False) -> None:
        self._checkpoint = checkpoint
        self._encoder = checkpoint.pieces
        self._threshold = threshold
        self._nested = nested

    @torch.inference_mode()
    def __call__(
        self, sentences: Sequence[Sequence[str]], labels: Sequence[str]
    ) -> list[list[Span]]:
        """Find the spans of each sentence, as far as the model takes it."""
        own, is_bi = list(dict.fromkeys(labels)), self._checkpoint.model.config.is_bi
        prompted = () if is_bi else self._encoder.encode_units(own)
        beside = self._embed(own) if is_bi else {}
        return [self._find(words, prompted, beside) if words else [] for words in sentences]

    def _embed(self, labels: Sequence[str]) -> dict[str, Tensor]:
        """What a bi-encoder scores texts beside."""
        pieces = pad_pieces(self._checkpoint.label_pieces.encode(labels))
        tensors = {name: torch.from_numpy(array) for name, array in pieces.items()}
        return self._checkpoint.bi_model.prepare(tensors)

    def _find(
        self, words: Sequence[str], prompted: Sequence[Sequence[int]], beside: dict[str, Tensor]
    ) -> list[Span]:
        config = self._checkpoint.model.config
        prompt = build_prompt(
            self._encoder,
            prompted,
            self._encoder.encode_units(list(words)),
            max_len=config.max_len,
            max_positions=find_positions(config.encoder, self._checkpoint.tokenizer_config),
            word_shapes=[word_shape(word) for word in words],
        )
        if not len(prompt.kept_words):
            return []
        feeds = make_tensors([prompt], config.span_width, word_shapes=config.word_shapes)
        tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
        logits = self._checkpoint.model(**tensors, **beside)[0].numpy()  # (L, K, C) or (L, C, 3)
        find = find_token_candidates if config.is_token_level else find_candidates
        found = find(logits, threshold=self._threshold)
        spans = select_spans(found, nested=self._nested, multi_label=False)
        return to_given_words(spans, prompt.kept_words)


def prompt_layout(checkpoint: Checkpoint) -> Layout:
    """How a model's prompts are laid out."""
    config, encoder = checkpoint.model.config, checkpoint.pieces
    return Layout(
        prefix=encoder.prefix_ids,
        suffix=encoder.suffix_ids,
        ent_id=encoder.ent_id,
        sep_id=encoder.sep_id,
        max_width=config.max_width,
        max_positions=find_positions(config.encoder, checkpoint.tokenizer_config),
        is_isolated=config.label_attention == "isolated",
        is_mean=config.label_pooling == "mean",
        has_shapes=config.word_shapes,
    )


def _runs(order: Sequence[int], sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Cut a length-sorted order into runs of one text or of at most `limit` padded pieces."""
    runs: list[list[int]] = []
    for index, size in zip(order, sizes, strict=True):
        if not runs or (len(runs[-1]) + 1) * size > limit:
            runs.append([])
        runs[-1].append(index)
    return runs

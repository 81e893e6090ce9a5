"""Predict with a bi-encoder in PyTorch, one sentence after the other, for verification.

Words, candidates and decoding are the runtime's own; only the logits come from PyTorch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nerlet.batch import make_batch
from nerlet.bundle import find_positions
from nerlet.decode import Span, select_spans
from nerlet.entities import to_given_words
from nerlet.label_encoder import pad_pieces
from nerlet.prompt import build_prompt
from nerlet.scores import find_candidates
from nerlet.token_scores import find_token_candidates
from nerlet_export.bi import LABELS_INPUT
from nerlet_export.checkpoint import Checkpoint


class BiPredictor:
    """Words and labels to spans, as `nerlet.evaluate` asks for them."""

    def __init__(self, checkpoint: Checkpoint, *, threshold: float, nested: bool = False) -> None:
        self._checkpoint = checkpoint
        self._model = checkpoint.bi_model
        self._encoder = checkpoint.pieces
        self._label_encoder = checkpoint.label_pieces
        self._threshold = threshold
        self._nested = nested

    @torch.inference_mode()
    def __call__(
        self, sentences: Sequence[Sequence[str]], labels: Sequence[str]
    ) -> list[list[Span]]:
        """Find the spans of each sentence, as far as the model takes it."""
        pieces = pad_pieces(self._label_encoder.encode(list(dict.fromkeys(labels))))
        embeddings = self._model.embed_labels(*map(torch.from_numpy, pieces.values()))
        return [self._find(words, embeddings) if words else [] for words in sentences]

    def _find(self, words: Sequence[str], embeddings: Tensor) -> list[Span]:
        config = self._model.config
        prompt = build_prompt(
            self._encoder,
            (),
            self._encoder.encode_units(list(words)),
            max_len=config.max_len,
            max_positions=find_positions(config.encoder, self._checkpoint.tokenizer_config),
        )
        if not len(prompt.kept_words):
            return []
        feeds = make_batch([prompt], config.span_width)
        tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
        logits = self._model(**tensors, **{LABELS_INPUT: embeddings})[0].numpy()
        find = find_token_candidates if config.is_token_level else find_candidates
        found = find(logits, threshold=self._threshold)
        spans = select_spans(found, nested=self._nested, multi_label=False)
        return to_given_words(spans, prompt.kept_words)

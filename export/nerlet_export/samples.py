"""Seeded prompts for tracing and verification: ragged texts and label sets, in words of any script.

They go through the runtime's own steps, so what is verified is what will be run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from nerlet.batch import Tensor, label_feeds, make_batch, text_feeds
from nerlet.bundle import find_positions
from nerlet.graph import THRESHOLDS
from nerlet.label_encoder import pad_pieces
from nerlet.prompt import Prompt, build_prompt
from nerlet.relation_prompt import make_tail
from nerlet.words import split_words, word_shape
from nerlet_export.checkpoint import Checkpoint

_LABELS = (
    "person", "organization", "location", "date", "product", "event", "medical condition", "law",
    "chemical compound", "sports team", "amount of money", "programming language", "vehicle",
)  # fmt: skip
_RELATIONS = ("founded", "works for", "located in", "treats", "part of", "date of", "capital of")
_TEXTS = (
    "Bill Gates and Paul Allen founded Microsoft in Albuquerque, New Mexico, on April 4, 1975.",
    "The patient was given 40 mg of furosemide for acute heart failure at St. Mary's Hospital.",
    "iPhone sales fell 3.5% in the EU after the Digital Markets Act took effect, Reuters said.",
    "La Universidad de São Paulo y el CNRS firmaron un acuerdo en Genève el 12 de mayo de 2021.",
    "Die Straßenbahn-Linie 7 fährt nach Köln-Mülheim; Ärzte ohne Grenzen sammelt dort Spenden.",
    "Мария Склодовская-Кюри родилась в Варшаве в 1867 году и получила две Нобелевские премии.",
    "東京大学の田中教授は2019年に論文を発表した。 北京 🚀 launches Chang'e-6!",
    "def main(): return np.dot(a, b)  # Python 3.11, see https://example.org/docs?v=2",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One ragged batch: prompts, and what they were made from."""

    texts: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    feeds: dict[str, Tensor]
    relations: tuple[tuple[str, ...], ...] = ()

    @property
    def is_of_spans(self) -> bool:
        """Whether it is a span model's; else a token-level one's."""
        return "span_mask" in self.feeds


def draw_sample(checkpoint: Checkpoint, *, seed: int, size: int = 4) -> Sample:
    """Draw texts of 1 to 60 words with 1 to 13 labels each, as one padded batch.

    A joint model's have 1 to 7 relations each, too, and thresholds that choose no entity.

    Args:
        checkpoint: Whose tokenizer and limits apply.
        seed: Of the draw.
        size: Texts in the batch, B.

    Returns:
        The batch; of a bi-encoder with the pieces of one set of labels for all texts.
    """
    rng = np.random.default_rng(seed)
    words = [word.text for text in _TEXTS for word in split_words(text)]
    texts, labels = [], []
    for _ in range(size):
        begin = int(rng.integers(len(words) - 1))
        own = words[begin : begin + int(rng.integers(1, 60))]
        texts.append(" ".join(own))
        count = int(rng.integers(1, len(_LABELS) + 1))
        labels.append(tuple(str(label) for label in rng.permutation(_LABELS)[:count]))
    config = checkpoint.model.config
    if config.is_bi:  # one set of labels for all texts, beside them
        labels = [labels[0]] * size
    prompted = [() if config.is_bi else own for own in labels]
    relations: list[tuple[str, ...]] = [() for _ in texts]
    if config.has_relations:
        counts = rng.integers(1, len(_RELATIONS) + 1, size)
        relations = [tuple(map(str, rng.permutation(_RELATIONS)[:count])) for count in counts]
    asked = zip(texts, prompted, relations, strict=True)
    prompts = [make_prompt(checkpoint, *own) for own in asked]
    feeds = make_batch(prompts, config.span_width, word_shapes=config.word_shapes)
    if config.is_bi:
        feeds |= pad_pieces(checkpoint.label_pieces.encode(labels[0]))
    if config.has_relations:  # on such texts a model may see entities, and pairs, without end
        feeds |= dict.fromkeys(THRESHOLDS, np.array(1, dtype=np.float32))
    return Sample(tuple(texts), tuple(labels), feeds, tuple(relations))


def prepare_sample(checkpoint: Checkpoint, sample: Sample) -> Sample:
    """Put embeddings of labels in the place of their pieces, where the model is a bi-encoder."""
    tensors = {name: torch.from_numpy(own) for name, own in sample.feeds.items()}
    with torch.inference_mode():
        prepared = checkpoint.model.prepare(tensors)
    return replace(sample, feeds={name: own.numpy() for name, own in prepared.items()})


def sample_parts(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of one label and of one text, as the two parts of a model take them."""
    encoder, shapes = checkpoint.pieces, checkpoint.model.config.word_shapes
    (label,) = encoder.encode_units(_LABELS[4:5])
    prompt = make_prompt(checkpoint, _TEXTS[0], ())
    return label_feeds(encoder.ent_id, label), text_feeds(prompt, word_shapes=shapes)


def make_prompt(
    checkpoint: Checkpoint, text: str, labels: Sequence[str], relations: Sequence[str] = ()
) -> Prompt:
    """Lay out one text and its labels, and a joint model's relations, as the runtime does."""
    encoder, config = checkpoint.pieces, checkpoint.model.config
    tail = make_tail(encoder, relations, config.rel_token_index) if config.has_relations else ()
    words = [word.text for word in split_words(text)]
    return build_prompt(
        encoder,
        encoder.encode_units(labels),
        encoder.encode_units(words),
        max_len=config.max_len,
        max_positions=find_positions(config.encoder, checkpoint.tokenizer_config),
        word_shapes=[word_shape(word) for word in words],
        is_isolated=config.label_attention == "isolated",
        tail=tail,
    )


def sample_feeds(checkpoint: Checkpoint, *, seed: int) -> dict[str, Tensor]:
    """The tensors of a drawn batch, by graph input name."""
    return prepare_sample(checkpoint, draw_sample(checkpoint, seed=seed)).feeds

"""A bi-encoder: texts in one graph, labels in another or in none, and a score for each pair.

text -prompt-> Prompt -batch-> tensors -graph, beside labels-> logits -> Candidates

What a graph takes of labels is one of two: their embeddings, as the bundles of nerlet do, or their
pieces, as the exports of the reference do, which then read all labels again for every text. Many
labels run in parts, so that memory is bounded: each label's scores are its own.

Axis letters: B batch, L words, K max width, C labels, D width.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nerlet.batch import Tensor
from nerlet.bundle import Bundle
from nerlet.decode import Candidates
from nerlet.errors import InputError
from nerlet.graph import Graph, TokenGraph
from nerlet.label_encoder import LabelEncoder, LabelPieces, LabelTokenizer, pad_pieces
from nerlet.label_files import LabelFiles
from nerlet.prompt import Prompt
from nerlet.selection import open_selector
from nerlet.sessions import Sessions, open_sessions

Floats = NDArray[np.float32]
Found = tuple[Candidates, Floats | None]
_EMBEDDINGS = ("labels_embeddings", "labels_embeds")  # names of the input, today's first
# What one run takes for the pairs of words and labels: some 4,800 labels beside 384 words of a span
# model, 28 of a token-level one.
_PART_BYTES = 256 * 2**20
_SPAN_BYTES = 12  # a logit and two copies
_TOKEN_BYTES = 48  # a number of the scorer's hidden layer, 4 D wide, and what it is made of
BUNDLE = "make a bundle of the checkpoint: nerlet-export convert CHECKPOINT_DIR OUT_DIR"


class BiGraph:
    """The open graphs; `find` may be called from several threads at once.

    Attributes:
        text: Scores texts beside labels.
        files: Of the model.
        encoder: Reads labels; None: there is none, or the text's graph does it.
        embeddings_input: Name of the text's graph for embeddings of labels; empty: it takes their
            pieces.
        has_word_shapes: Never.
    """

    has_word_shapes = False

    def __init__(
        self,
        text: Graph | TokenGraph,
        files: LabelFiles,
        embeddings_input: str,
        encoder: LabelEncoder | None,
    ) -> None:
        """Join the parts.

        Args:
            text: Of the one signature or the other.
            files: Of the model.
            embeddings_input: What `find_embeddings_input` gives for the text's graph.
            encoder: Where the model has one; only of a graph that takes embeddings.

        Raises:
            BundleError: Labels are read here, and there is no tokenizer for them.
        """
        self.text = text
        self.encoder = encoder
        self.embeddings_input = embeddings_input
        self.files = files
        self._tokenizer: LabelTokenizer | None = None
        if encoder is not None or not embeddings_input:
            self._tokenizer = LabelTokenizer(files.needed_tokenizer, files.max_positions)

    @property
    def sessions(self) -> Sessions:
        """Where texts run."""
        return self.text.sessions

    def read_labels(self, labels: Sequence[str]) -> LabelPieces:
        """Return the pieces of labels.

        Raises:
            InputError: The model cannot read labels, or one of these.
        """
        if self._tokenizer is None:
            raise InputError(
                f"labels: expected their embeddings, since {self.sessions.path} takes these and "
                "no encoder of labels is beside it; give them with batch_predict_with_embeds, or "
                f"{BUNDLE}"
            )
        return self._tokenizer.encode(labels)

    def find(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[LabelPieces | Floats],
        limits: Sequence[NDArray[np.float64]],
        make_batch: Callable[[Sequence[Prompt]], dict[str, Tensor]],
        *,
        one_thread: bool,
        with_logits: bool,
    ) -> list[Found]:
        """Find the spans of texts above their limits.

        Args:
            prompts: Of no label each.
            labels: Of each text; texts with the very same ones run together.
            limits: Of each text's labels, (its labels,).
            make_batch: Makes the tensors of texts that run together.
            one_thread: As in `Sessions.run`.
            with_logits: Return the logits, too, (L, K, C), where it is a span model.

        Raises:
            GraphError: As in `Sessions.run`.
        """
        found: list[Found] = [(Candidates.none(), None)] * len(prompts)
        groups: dict[int, list[int]] = {}
        for place, prompt in enumerate(prompts):
            if len(prompt.kept_words):
                groups.setdefault(id(labels[place]), []).append(place)
        for places in groups.values():
            feeds = make_batch([prompts[place] for place in places])
            own_limits = [limits[place] for place in places]
            own = labels[places[0]]
            if self.encoder is not None and isinstance(own, tuple):
                own = self.encoder.embed(own)
            cuts = self._cut(len(own), feeds["text_lengths"])
            parts = [
                self._find_part(
                    {**feeds, **self._label_feeds(own[begin:end])},
                    [limit[begin:end] for limit in own_limits],
                    one_thread=one_thread,
                    with_logits=with_logits,
                )
                for begin, end in cuts
            ]
            for place, *own_parts in zip(places, *parts, strict=True):
                found[place] = _join(own_parts, [begin for begin, _ in cuts])
        return found

    def _label_feeds(self, labels: LabelPieces | Floats) -> dict[str, Tensor]:
        if isinstance(labels, tuple):
            return pad_pieces(labels)
        return {self.embeddings_input: labels}

    def _cut(self, count: int, lengths: Tensor) -> list[tuple[int, int]]:
        """Ranges of labels that run at once: all, or as many as memory is meant for."""
        if self.files.is_fused:
            return [(0, count)]
        width = self.files.width
        graph = self.text
        of_word = (
            _SPAN_BYTES * graph.max_width if isinstance(graph, Graph) else _TOKEN_BYTES * width
        )
        size = max(_PART_BYTES // (of_word * len(lengths) * int(lengths.max())), 1)
        return [(begin, min(begin + size, count)) for begin in range(0, count, size)]

    def _find_part(
        self,
        feeds: dict[str, Tensor],
        limits: Sequence[NDArray[np.float64]],
        *,
        one_thread: bool,
        with_logits: bool,
    ) -> list[Found]:
        """Find the spans of texts for some labels."""
        graph, count = self.text, len(limits[0])
        if isinstance(graph, Graph) and graph.selector is not None and not with_logits:
            thresholds = [own.astype(np.float32) for own in limits]
            on_device = graph.run_to_candidates(graph.selector, feeds, thresholds)
            return [(own, None) for own in on_device]
        lengths = feeds["text_lengths"][:, 0].tolist()
        found: list[Found] = []
        for row, words, limit in zip(
            graph.run(feeds, count, one_thread=one_thread), lengths, limits, strict=True
        ):
            own, logits = graph.find_spans(graph.cut_padding(row, words, count), limit)
            found.append((own, logits if with_logits else None))
        return found


def open_bi_graph(bundle: Bundle, files: LabelFiles, sessions: Sessions) -> BiGraph:
    """Open what a bi-encoder runs.

    Args:
        bundle: The model directory.
        files: What it holds for labels.
        sessions: Of the graph that scores texts.

    Raises:
        BundleError: There is no tokenizer of labels where one is needed.
        GraphError: A signature is another.
    """
    name = find_embeddings_input(sessions)
    probe: dict[str, Tensor] = pad_pieces([(0,)])
    if name:
        probe = {name: np.zeros((1, files.width), dtype=np.float32)}
    text: Graph | TokenGraph
    if bundle.architecture == "bi_token":
        text = TokenGraph(sessions, bundle.ent.id, bundle.sep.id, probe)
    else:
        text = Graph(sessions, bundle.max_width, open_selector(sessions), probe)
    encoder = None
    if name and files.encoder_path is not None:
        own = open_sessions(files.encoder_path, threads=1)
        encoder = LabelEncoder(own, files.width, threads=sessions.threads)
    return BiGraph(text, files, name, encoder)


def find_embeddings_input(sessions: Sessions) -> str:
    """Return the name by which a graph takes embeddings of labels; empty where it does not."""
    names = {arg.name for arg in sessions.main.get_inputs()}
    return next((name for name in _EMBEDDINGS if name in names), "")


def _join(parts: Sequence[Found], first_labels: Sequence[int]) -> Found:
    """Join what was found for the labels from each first one on."""
    if len(parts) == 1:
        return parts[0]
    candidates = [own for own, _ in parts]
    logits = [own for _, own in parts if own is not None]
    shifted = [own.label + first for own, first in zip(candidates, first_labels, strict=True)]
    joined = Candidates(
        np.concatenate([own.start for own in candidates]),
        np.concatenate([own.end for own in candidates]),
        np.concatenate(shifted),
        np.concatenate([own.score for own in candidates]),
    )
    return joined, np.concatenate(logits, axis=-1) if logits else None

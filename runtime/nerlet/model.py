"""What users call: arguments in, entities out; each step between is a file of its own.

text -arguments-> Task -scoring-> Scored -results-> Entity[]

Axis letters: C labels, D width.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nerlet.arguments import (
    Flag,
    GivenSpans,
    Labels,
    OneThreshold,
    OwnThresholds,
    Task,
    Threshold,
    iterate_texts,
    read_count,
    read_sentences,
    read_tasks,
    read_text,
    read_texts,
    refuse_unknown,
)
from nerlet.bundle import Bundle, Manifest, default_bundle_path, open_bundle
from nerlet.decode import Candidates, Span
from nerlet.embeddings import (
    check_embeddings,
    embed_labels,
    expect_bi_encoder,
    load_labels,
    save_labels,
)
from nerlet.entities import Entity, to_given_candidates, to_given_words
from nerlet.hub import find_model
from nerlet.placement import open_graph
from nerlet.relation_arguments import Relations, no_relations
from nerlet.relations import Relation
from nerlet.results import choose_spans, find_entities
from nerlet.scoring import AnyGraph, Scorer
from nerlet.sessions import CUDA
from nerlet.words import WordSplitter, as_words, split_words


def load(
    path: str | Path | None = None,
    *,
    graph: str | None = None,
    device: str = "cpu",
    providers: Sequence[str] | None = None,
    threads: int | None = None,
) -> "GLiNER":
    """Load a model.

    Args:
        path: Directory of a bundle, or of any ONNX export of the reference's layout; None: the
            bundle that nerlet ships.
        graph: Name of the ONNX file to run, such as "model_quantized.onnx", on whatever device;
            None: the one that suits the device (`exports` says which).
        device: "cpu" or "cuda"; CUDA takes the bundle's half-precision graph where it has one.
        providers: Names of onnxruntime's execution providers, instead of a device.
        threads: CPU threads of one run; None: what affinity and the container's quota allow.

    Raises:
        BundleError: The directory is not a whole model that this version reads.
        GraphError: The device cannot be had or runs none of the bundle's graphs, or the graph's
            signature is another.
        InputError: `threads` is not a whole number of at least 1, or there is no such `graph`.
    """
    bundle = open_bundle(default_bundle_path() if path is None else path, graph)
    kind: type[GLiNER] = GLiNER
    if bundle.rel is not None:
        from nerlet.relation_model import RelationGLiNER  # which is a GLiNER, defined below

        kind = RelationGLiNER
    return kind(bundle, open_graph(bundle, device, providers, threads))


class GLiNER:
    """A loaded model; its methods may be called from several threads at once.

    Attributes:
        bundle: The model directory.
        own_thresholds: What a call that gives no threshold has.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph: AnyGraph,
        split: WordSplitter = split_words,
    ) -> None:
        """Join the parts of a model; `load` does it from a path.

        Args:
            bundle: The model directory.
            graph: Its open graph.
            split: Finds the words of a text; called on the thread that asks for entities.
        """
        self.bundle = bundle
        self._scorer = Scorer(bundle, graph)
        self._split = split
        self.own_thresholds = OwnThresholds(self.threshold, bundle.label_thresholds)

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        *,
        graph: str | None = None,
        device: str = "cpu",
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        **hub: Any,  # noqa: ANN401  # named, or refused, by find_model
    ) -> "GLiNER":
        """Load a model under the reference's name for it.

        Args:
            model_id: A local directory, which never asks the hub, or "owner/name" on it. Of that
                only what runs is fetched: the config, the tokenizer and one graph with its data.
            graph: As in `load`.
            device: As in `load`.
            providers: As in `load`.
            threads: As in `load`.
            **hub: `revision`, `cache_dir`, `local_files_only`, `token`, as the hub has them.

        Raises:
            NerletError: No such model, an unknown argument, or as in `load`.
        """
        is_cuda = CUDA in providers if providers else device == "cuda"
        path = find_model(model_id, graph=graph, is_cuda=is_cuda, **hub)
        return load(path, graph=graph, device=device, providers=providers, threads=threads)

    @property
    def manifest(self) -> Manifest | None:
        """What the bundle says of itself; None for an export of the reference's layout."""
        return self.bundle.manifest

    @property
    def threshold(self) -> float:
        """The score above which spans are kept where a call gives no threshold.

        Labels of `bundle.label_thresholds` have one of their own instead.
        """
        return 0.5 if self.bundle.threshold is None else self.bundle.threshold

    @property
    def device(self) -> str:
        """Where the graph runs: "cpu", "cuda", or the name of another provider."""
        return self._scorer.device

    def predict_entities(
        self,
        text: str,
        labels: Labels,
        flat_ner: bool = True,  # noqa: FBT001, FBT002  # the reference's order of arguments
        threshold: OneThreshold = None,
        multi_label: bool = False,  # noqa: FBT001, FBT002  # as above
        return_class_probs: bool = False,  # noqa: FBT001, FBT002  # as above
        **others: Any,  # noqa: ANN401  # passed on to inference
    ) -> list[Entity]:
        """Find the entities of one text; arguments and errors as in `inference`."""
        others["return_class_probs"] = return_class_probs
        return self.inference([text], labels, flat_ner, threshold, multi_label, **others)[0]

    def inference(
        self,
        texts: str | Iterable[str],
        labels: Labels,
        flat_ner: Flag = True,  # noqa: FBT002  # the reference's order of arguments
        threshold: Threshold = None,
        multi_label: Flag = False,  # noqa: FBT002  # as above
        batch_size: int | None = None,
        packing_config: None = None,
        input_spans: GivenSpans | None = None,
        return_class_probs: bool = False,  # noqa: FBT001, FBT002  # as above
        **unknown: object,
    ) -> list[list[Entity]]:
        """Find the entities of many texts.

        Args:
            texts: Texts, or one text. A blank one, or one that is not a string, gives [].
            labels: The types to find: a string, a list, a dict {name: description} (the
                description is what the model reads), or a list with one list or dict per text.
            flat_ner: Entities never overlap; False: they may nest. Or one per text.
            threshold: Keep scores above it, 0 to 1; a dict {label: number} where labels differ;
                None: the model's own, of each label or, where that has none, of all. Or one per
                text.
            multi_label: One span may have several labels. Or one per text.
            batch_size: Texts in one run on a GPU, 8 by default. On a CPU each text runs alone,
                which is as fast and keeps its scores free of its neighbours; as many at once as
                there are threads, where there are at least half as many texts. The first such call
                opens the graph once more, and holds its weights a second time.
            packing_config: Only None: nerlet does not have this part of the reference.
            input_spans: For each text a list of {"start", "end"} offsets, the only spans that may
                be found.
            return_class_probs: Add `class_probs`, the five best labels of each entity.
            **unknown: Refused.

        Returns:
            For each text its entities by start.

        Raises:
            InputError: An argument is unknown, out of bounds or of the wrong length.

        Warns:
            UserWarning: Words past the end of what the model takes were cut.
        """
        if unknown.get("relations"):
            raise no_relations(self.bundle)
        refuse_unknown({"packing_config": packing_config, **unknown})
        checked, tasks = self._read(texts, labels, flat_ner, threshold, multi_label, input_spans)
        return self._find_all(checked, tasks, batch_size, return_class_probs=return_class_probs)

    def _read(
        self,
        texts: object,
        labels: object,
        flat_ner: object,
        threshold: object,
        multi_label: object,
        input_spans: object,
    ) -> tuple[list[str], list[Task]]:
        """Return texts and what to find in each; arguments and errors as in `inference`."""
        checked = read_texts(texts)
        choices = (labels, threshold, self.own_thresholds, multi_label, input_spans)
        return checked, read_tasks(len(checked), *choices, flat_ner=flat_ner)

    def _find_all(
        self,
        texts: list[str],
        tasks: list[Task],
        batch_size: int | None,
        *,
        return_class_probs: bool,
        embeddings: NDArray[np.float32] | None = None,
    ) -> list[list[Entity]]:
        """Find the entities of checked texts; embeddings as in `Scorer.score_all`."""
        return [
            find_entities(text, task, scored, return_class_probs=return_class_probs)
            for text, task, scored in self._scorer.score_all(
                texts,
                self._split,
                tasks,
                batch_size,
                with_logits=return_class_probs,
                embeddings=embeddings,
            )
        ]

    batch_predict_entities = inference  # the reference's older name

    def encode_labels(
        self, labels: str | Sequence[str], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Make the embeddings of labels, which a bi-encoder alone has; each is read once and kept.

        Args:
            labels: Labels, or what the model is to read in their place; duplicates stay.
            batch_size: Changes nothing: each label is read alone, as many at once as there are
                threads.

        Returns:
            float32, (C, D).

        Raises:
            InputError: The model is no bi-encoder, has no encoder of labels, or cannot read one.
        """
        read_count("batch_size", batch_size, default=8)
        return embed_labels(expect_bi_encoder(self._scorer.graph, "encode_labels"), labels)

    def save_labels(self, path: str | Path, labels: str | Sequence[str]) -> None:
        """Write the embeddings of labels to a file; arguments and errors as in `encode_labels`.

        Args:
            path: Of the file, `.npz`.
            labels: The labels.

        Raises:
            OSError: The file cannot be written.
        """
        graph = expect_bi_encoder(self._scorer.graph, "save_labels")
        save_labels(graph, Path(path), labels)

    def load_labels(self, path: str | Path) -> list[str]:
        """Take the embeddings of a file, so that these labels are not read any more.

        Args:
            path: What `save_labels` wrote, of this very model.

        Returns:
            The labels.

        Raises:
            InputError: As in `encode_labels`, or the file is another, or another model's.
        """
        return load_labels(expect_bi_encoder(self._scorer.graph, "load_labels"), Path(path))

    def batch_predict_with_embeds(
        self,
        texts: str | Iterable[str],
        labels_embeddings: ArrayLike,
        labels: Labels,
        flat_ner: Flag = True,  # noqa: FBT002  # the reference's order of arguments
        threshold: Threshold = None,
        multi_label: Flag = False,  # noqa: FBT002  # as above
        batch_size: int | None = None,
        packing_config: None = None,
        input_spans: GivenSpans | None = None,
        return_class_probs: bool = False,  # noqa: FBT001, FBT002  # as above
        **unknown: object,
    ) -> list[list[Entity]]:
        """Find the entities of many texts beside embeddings of labels, in a bi-encoder.

        `labels_embeddings`, (C, D), are what `encode_labels` gives for `labels`, which are the same
        for all texts and each given once; all else is as in `inference`.

        Raises:
            InputError: As in `inference`, or the model takes no embeddings, or not these.
        """
        refuse_unknown({"packing_config": packing_config, **unknown})
        checked, tasks = self._read(texts, labels, flat_ner, threshold, multi_label, input_spans)
        graph = expect_bi_encoder(self._scorer.graph, "batch_predict_with_embeds")
        embeddings = check_embeddings(graph, labels_embeddings, [task.labels for task in tasks])
        return self._find_all(
            checked,
            tasks,
            batch_size,
            return_class_probs=return_class_probs,
            embeddings=embeddings,
        )

    def predict_with_embeds(
        self,
        text: str,
        labels_embeddings: ArrayLike,
        labels: Labels,
        flat_ner: bool = True,  # noqa: FBT001, FBT002  # the reference's order of arguments
        threshold: OneThreshold = None,
        multi_label: bool = False,  # noqa: FBT001, FBT002  # as above
        return_class_probs: bool = False,  # noqa: FBT001, FBT002  # as above
        **others: Any,  # noqa: ANN401  # passed on
    ) -> list[Entity]:
        """Find the entities of one text; all else as in `batch_predict_with_embeds`."""
        others["return_class_probs"] = return_class_probs
        choices = (labels_embeddings, labels, flat_ner, threshold, multi_label)
        return self.batch_predict_with_embeds([text], *choices, **others)[0]

    def predict_relations(
        self,
        text: str,  # noqa: ARG002  # the signature of the class that does find them
        labels: Labels,  # noqa: ARG002
        relations: Relations,  # noqa: ARG002
        *_: object,
        **__: object,
    ) -> tuple[list[Entity], list[Relation]]:
        """Find the entities of one text and the relations between them: with a joint model.

        Raises:
            InputError: This is none; `relation_model.RelationGLiNER` is what `load` makes of one.
        """
        raise no_relations(self.bundle)

    def stream(
        self,
        texts: Iterable[str],
        labels: Labels,
        *,
        flat_ner: bool = True,
        threshold: OneThreshold = None,
        multi_label: bool = False,
        batch_size: int | None = None,
        return_class_probs: bool = False,
        relations: Relations | None = None,
    ) -> Iterator[list[Entity]]:
        """Find the entities of texts one after the other, from an iterable that may be endless.

        On a CPU as many texts run at once as the model has threads, and at most 4 times as many
        are read ahead of what has been taken; on another device, 32 batches. So memory is that of a
        few texts. With one thread none is read ahead; else a result may wait until the next text
        has come.

        Args:
            texts: Texts. A blank one, or one that is not a string, gives [].
            labels: As in `inference`, the same for all texts, and so are all the others.
            flat_ner: Entities never overlap.
            threshold: Keep scores above it.
            multi_label: One span may have several labels.
            batch_size: Texts in one run on a GPU.
            return_class_probs: Add `class_probs`.
            relations: Only None: a joint model finds them.

        Returns:
            The entities of each text, in the order of the texts.

        Raises:
            InputError: An argument is out of bounds; at the call, before any text is read.

        Warns:
            UserWarning: Words past the end of what the model takes were cut; for each such text.
        """
        if relations is not None:
            raise no_relations(self.bundle)
        own = (self.own_thresholds, multi_label)
        (task,) = read_tasks(1, labels, threshold, *own, flat_ner=flat_ner)
        checked = map(read_text, iterate_texts(texts))
        all_scored = self._scorer.stream(
            checked, self._split, task, batch_size, with_logits=return_class_probs
        )
        return (
            find_entities(text, task, scored, return_class_probs=return_class_probs)
            for text, scored in all_scored
        )

    def predict_words(
        self,
        sentences: Iterable[Sequence[str]],
        labels: Labels,
        *,
        threshold: Threshold = None,
        nested: Flag = False,
        multi_label: Flag = False,
        batch_size: int | None = None,
    ) -> list[list[Span]]:
        """Find spans in sentences whose words are given; none is joined or split again.

        Args:
            sentences: Words of each sentence.
            labels: As in `inference`, and so are all the others.
            threshold: Keep scores above it.
            nested: Spans may nest; else they never overlap.
            multi_label: One span may have several labels.
            batch_size: Sentences in one run on a GPU.

        Returns:
            For each sentence its spans, half-open ranges of the given words, by start; `label`
            counts in the labels without their duplicates.

        Raises:
            InputError: An argument is out of bounds or of the wrong length.
        """
        checked = read_sentences(sentences)
        count = len(checked)
        tasks = read_tasks(
            count, labels, threshold, self.own_thresholds, multi_label, nested=nested
        )
        return [
            to_given_words(choose_spans(scored, task), scored.kept_words) if scored else []
            for _, task, scored in self._scorer.score_all(checked, as_words, tasks, batch_size)
        ]

    def score_words(
        self, sentences: Iterable[Sequence[str]], labels: Labels, *, threshold: Threshold = None
    ) -> list[Candidates]:
        """Score the spans of sentences whose words are given, and choose none of them.

        Args:
            sentences: As in `predict_words`, and so are all the others.
            labels: The types to find.
            threshold: Return what scores above it.

        Returns:
            For each sentence its candidates, half-open ranges of the given words;
            `decode.select_spans` makes of them what `predict_words` returns.

        Raises:
            InputError: An argument is out of bounds or of the wrong length.
        """
        checked = read_sentences(sentences)
        tasks = read_tasks(
            len(checked), labels, threshold, self.own_thresholds, multi_label=False, nested=False
        )
        all_scored = self._scorer.score_all(checked, as_words, tasks, batch_size=None)
        return [
            to_given_candidates(scored.found, scored.kept_words) if scored else Candidates.none()
            for _, _, scored in all_scored
        ]

"""Checkpoint -> verified bundle: the whole export, in the order in which it happens.

read -> trace -> check signature -> compare with PyTorch -> quantise -> check -> measure drift ->
(halve -> check -> measure drift) -> (compare F1 on labelled data) -> write. Nothing is written
before everything has passed.
"""

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerlet.bundle import find_positions
from nerlet.errors import InputError
from nerlet.examples import find_data
from nerlet.manifest import (
    FP16_GRAPH_NAME,
    GRAPH_NAME,
    LABELS_ENCODER_NAME,
    MANIFEST_NAME,
    PRECISIONS,
    Manifest,
    SpecialToken,
    is_threshold,
    read_json,
    record_file,
    write_manifest,
)
from nerlet_export import verify
from nerlet_export.checkpoint import CARD_NAME, Checkpoint, load_checkpoint, save_tokenizers
from nerlet_export.compare import compare_on_data
from nerlet_export.config import write_model_config
from nerlet_export.graph import build_graph, build_labels_encoder, build_parts
from nerlet_export.half import check_half, halve_graph
from nerlet_export.onnx_graph import OnnxGraph, write_graphs
from nerlet_export.quantize import quantize_graph
from nerlet_export.verify_relations import compare_relations

Graphs = dict[str, OnnxGraph]  # by file
logger = logging.getLogger(__name__)

_DEFAULT_THRESHOLD = 0.5  # the runtime's, for a bundle that has none


@dataclass(frozen=True, slots=True)
class About:
    """What the bundle says of itself; None: what the checkpoint's training card says."""

    name: str | None = None
    origin: str | None = None
    license: str | None = None
    threshold: float | None = None


def convert(
    source: Path | str,
    target: Path | str,
    *,
    precision: str = "int8",
    fp16: bool = False,
    about: About | None = None,
    dev: Sequence[Path | str] = (),
) -> Manifest:
    """Convert a checkpoint to a bundle.

    Args:
        source: Checkpoint directory, the reference's layout.
        target: Directory of the bundle; its files are replaced only when everything has passed.
        precision: "int8" or "fp32".
        fp16: Add the graph in half precision, which CUDA takes. It is checked on the CPU.
        about: Name, origin, licence and threshold of the bundle.
        dev: Folders or files of labelled texts, on each of which the bundle must not lose more
            than `compare.MAX_F1_LOSS` points of average F1 against PyTorch.

    Returns:
        The manifest written.

    Raises:
        BundleError: The checkpoint cannot be read.
        GraphError: The graph is not the model; nothing is written.
        InputError: `precision` is unknown, `target` a file, the threshold no score, `dev` is not
            there or not labelled texts, or `fp16` or `dev` is asked of a joint model.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"precision is {precision!r}, expected {' or '.join(map(repr, PRECISIONS))}"
        )
    source, target, held = Path(source), Path(target), [find_data(path) for path in dev]
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: expected a directory for the bundle, found a file")
    logger.info("reading %s", source)
    checkpoint = load_checkpoint(source)
    if checkpoint.model.config.has_relations and (fp16 or held):
        raise InputError(
            f"{source}: a joint entity and relation model is converted without "
            f"{'fp16' if fp16 else 'dev'}, which is not built for its kind; leave it out"
        )
    card = _read_card(source)
    about = _complete(about or About(), card, source)
    threshold = _DEFAULT_THRESHOLD if about.threshold is None else about.threshold
    if not is_threshold(threshold):
        raise InputError(f"threshold is {threshold!r}, expected a number from 0 to 1")
    groups, report = _build_verified(checkpoint, precision, threshold, fp16=fp16)
    logger.info("writing the bundle")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fresh = Path(folder)
        for graphs in groups:
            write_graphs(graphs, fresh)
        write_model_config(fresh, checkpoint.model.config)
        save_tokenizers(fresh, checkpoint)
        manifest = _describe(checkpoint, fresh, precision, about, report, card)
        write_manifest(fresh, manifest)
        if held:
            report["data"] = [_hold_on_data(checkpoint, fresh, path, threshold) for path in held]
            manifest = _describe(checkpoint, fresh, precision, about, report, card)
            write_manifest(fresh, manifest)
        target.mkdir(exist_ok=True)
        for path in _list_files(fresh):
            place = target / path.relative_to(fresh)
            place.parent.mkdir(exist_ok=True)
            shutil.move(path, place)
    total = sum(record.bytes for record in manifest.files.values())
    logger.info("%s: %s, %.1f MB", target, precision, total / 1e6)
    return manifest


def _hold_on_data(
    checkpoint: Checkpoint, bundle: Path, dev: Path, threshold: float
) -> dict[str, object]:
    """Compare with PyTorch on labelled data; the figures for the log and the manifest."""
    logger.info("comparing the bundle with PyTorch on %s", dev)
    held = compare_on_data(checkpoint, bundle, dev, threshold=threshold)
    logger.info(
        "on %s: average F1 %.2f, PyTorch's %.2f; entity agreement F1 %.3f over %d entities; "
        "score drift %.4f mean, %.3f max",
        dev,
        held.bundle_f1,
        held.torch_f1,
        held.entity_agreement,
        held.entities,
        held.mean_score_drift,
        held.max_score_drift,
    )
    return verify.as_figures(held)


def _build_verified(
    checkpoint: Checkpoint, precision: str, threshold: float, *, fp16: bool
) -> tuple[list[Graphs], dict[str, Any]]:
    """Build the graphs asked for; what verification found goes to the log and into the manifest.

    Returns:
        Graphs in groups that share weights, and the report.
    """
    exact, report = _build_exact(checkpoint)
    graphs = exact
    if precision == "int8":
        graphs = _build_int8(checkpoint, exact, threshold, report)
    # The two graphs of a bi-encoder have no weights in common
    is_bi = checkpoint.model.config.is_bi
    groups = [{name: own} for name, own in graphs.items()] if is_bi else [graphs]
    if fp16:
        groups.append(_build_half(checkpoint, exact[GRAPH_NAME], threshold, report))
    return groups, report


def _build_exact(checkpoint: Checkpoint) -> tuple[Graphs, dict[str, Any]]:
    """Build the float graphs, and begin the report."""
    config = checkpoint.model.config
    weights = sum(own.numel() for own in checkpoint.model.parameters())
    logger.info("tracing the model, %.1f million weights", weights / 1e6)
    graph = build_graph(checkpoint)
    verify.check_signature(graph.model, config)
    labels = None
    if config.is_bi:
        labels = build_labels_encoder(checkpoint)
        verify.check_labels_signature(labels.model, config)
    logger.info("comparing the float graph with PyTorch")
    exact = verify.compare_float(checkpoint, graph, labels)
    logger.info(
        "float graph against PyTorch: largest difference of a logit %.2e (allowed %.2e), %d logits",
        exact.max_difference,
        exact.tolerance,
        exact.cells,
    )
    nodes = len(graph.model.graph.node)
    report: dict[str, Any] = {"float": verify.as_figures(exact), "nodes": nodes}
    if labels is not None:
        return {GRAPH_NAME: graph, LABELS_ENCODER_NAME: labels}, report
    if config.has_relations:
        related = compare_relations(checkpoint, graph)
        logger.info(
            "its relations: largest difference of a logit %.2e (allowed %.2e), %d pairs, %d logits",
            related.max_difference,
            related.tolerance,
            related.pairs,
            related.cells,
        )
        report["relations"] = verify.as_figures(related)
    if config.label_attention != "isolated":
        return {GRAPH_NAME: graph}, report
    logger.info("tracing the graphs of labels and of texts, and comparing them with PyTorch")
    parts = build_parts(checkpoint)
    split = verify.compare_parts(checkpoint, parts)
    logger.info(
        "graphs of labels and of texts against PyTorch: largest difference of a score %.2e "
        "(allowed %.0e), %d scores",
        split.max_score_difference,
        split.tolerance,
        split.cells,
    )
    report["parts"] = verify.as_figures(split)
    return {GRAPH_NAME: graph, **parts}, report


def _build_int8(
    checkpoint: Checkpoint, exact: Graphs, threshold: float, report: dict[str, Any]
) -> Graphs:
    """Quantise the float graphs, and add to the report."""
    logger.info("quantising to int8")
    quantised = {name: quantize_graph(own) for name, own in exact.items()}
    verify.check_signature(quantised[GRAPH_NAME].model, checkpoint.model.config)
    logger.info("measuring what int8 changes")
    labels = None
    if LABELS_ENCODER_NAME in exact:
        labels = exact[LABELS_ENCODER_NAME], quantised[LABELS_ENCODER_NAME]
    drift = verify.measure_drift(
        checkpoint,
        exact[GRAPH_NAME],
        quantised[GRAPH_NAME],
        threshold=threshold,
        labels=labels,
    )
    _log_drift("int8", drift)
    report["int8"] = verify.as_figures(drift)
    return quantised


def _build_half(
    checkpoint: Checkpoint, exact: OnnxGraph, threshold: float, report: dict[str, Any]
) -> Graphs:
    """Halve the whole float graph, and add to the report."""
    logger.info("halving to fp16")
    half = halve_graph(exact)
    verify.check_signature(half.model, checkpoint.model.config)
    logger.info("measuring what fp16 changes, on the CPU")
    drift = check_half(checkpoint, exact, half, threshold=threshold)
    _log_drift("fp16, on the CPU,", drift)
    report["fp16"] = verify.as_figures(drift)
    return {FP16_GRAPH_NAME: half}


def _log_drift(name: str, drift: verify.DriftReport) -> None:
    logger.info(
        "%s against float: score drift %.4f mean, %.3f max; logit error %.3f of their deviation; "
        "entity agreement F1 %.3f over %d entities at threshold %g",
        name,
        drift.mean_score_drift,
        drift.max_score_drift,
        drift.logit_error,
        drift.entity_agreement,
        drift.entities,
        drift.threshold,
    )


def _describe(
    checkpoint: Checkpoint,
    folder: Path,
    precision: str,
    about: About,
    report: dict[str, Any],
    card: dict[str, Any],
) -> Manifest:
    config = checkpoint.model.config
    pieces = checkpoint.pieces
    return Manifest(
        name=about.name or "",
        origin=about.origin or "",
        license=about.license or "",
        precision=precision,
        architecture=config.architecture,
        max_width=config.max_width,
        max_len=config.max_len,
        max_types=config.max_types,
        max_positions=find_positions(config.encoder, checkpoint.tokenizer_config),
        threshold=about.threshold,
        special_tokens={}
        if config.is_bi
        else {
            "ent": SpecialToken(config.ent_token, pieces.ent_id),
            "sep": SpecialToken(config.sep_token, pieces.sep_id),
            **(
                {"rel": SpecialToken(config.rel_token, config.rel_token_index)}
                if config.has_relations
                else {}
            ),
        },
        word_shapes=config.word_shapes,
        label_attention=config.label_attention,
        files={
            path.relative_to(folder).as_posix(): record_file(path)
            for path in _list_files(folder)
            if path.name != MANIFEST_NAME
        },
        figures=card,
        verification=report,
    )


def _list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read_card(source: Path) -> dict[str, Any]:
    path = source / CARD_NAME
    return read_json(path) if path.exists() else {}


def _complete(about: About, card: dict[str, Any], source: Path) -> About:
    """Fill what was not said from the training card, or from the checkpoint's own name."""
    threshold = about.threshold if about.threshold is not None else card.get("threshold")
    encoder = card.get("encoder")
    trained = f"trained by nerlet-export from {encoder}" if encoder else None
    return About(
        name=about.name or source.resolve().name,
        origin=about.origin or trained or f"converted from the checkpoint {source.resolve().name}",
        license=about.license or "unknown: that of the checkpoint",
        threshold=threshold,
    )

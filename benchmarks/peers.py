"""Runtimes beside ours on the same weights: what a benchmark calls, by name.

Each takes texts and labels and gives entities as dicts with `start`, `end` and `label`, at a
threshold of 0.5. All read one checkpoint of the reference:

* nerlet int8, nerlet fp32: bundles that `nerlet-export convert` makes of it;
* gliner torch: the reference, fp32;
* gliner onnx fp32, gliner onnx int8: the reference on its own exports;
* fast_gliner fp32, fast_gliner int8: a runtime in Rust, on the same exports;
* gliner-cpp fp32, gliner-cpp int8: one in C++, on the same exports, too.

These two split words in their own ways and count offsets in bytes, which in ASCII are characters.
They cannot be told how many threads to use, so they are only measured where the others take all,
too.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

import nerlet
from nerlet.threads import count_usable_threads
from nerlet_export.convert import convert

Entities = list[dict[str, Any]]
Predict = Callable[[Sequence[str], Sequence[str]], list[Entities]]

NERLET = ("nerlet int8", "nerlet fp32")
PEERS = (
    "gliner torch",
    "gliner onnx fp32",
    "gliner onnx int8",
    "fast_gliner fp32",
    "fast_gliner int8",
    "gliner-cpp fp32",
    "gliner-cpp int8",
)
_OWN_WAYS = ("fast_gliner", "gliner-cpp")
_REFERENCE_GRAPHS = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}


def can_limit(name: str, threads: int) -> bool:
    """Whether a runtime can be measured with so many threads."""
    return not name.startswith(_OWN_WAYS) or threads == count_usable_threads()


def prepare(checkpoint: Path, names: Sequence[str]) -> None:
    """Make the bundles and exports that runtimes need, beside the checkpoint."""
    for precision in ("int8", "fp32"):
        bundle = checkpoint / f"nerlet-{precision}"
        if f"nerlet {precision}" in names and not bundle.exists():
            convert(checkpoint, bundle, precision=precision)
    exports = checkpoint / "onnx"
    is_needed = any("onnx" in name or name.startswith(_OWN_WAYS) for name in names)
    if is_needed and not (exports / "model_quantized.onnx").exists():
        exports.mkdir(exist_ok=True)
        _load_reference(checkpoint).export_to_onnx(str(exports), quantize=True)


def load(name: str, checkpoint: Path, threads: int) -> Predict:
    """Load a runtime.

    Args:
        name: One of `NERLET` or `PEERS`.
        checkpoint: That `prepare` has seen.
        threads: Of one run.

    Raises:
        ImportError: The runtime is not installed.
    """
    kind, _, precision = name.rpartition(" ")
    if kind == "nerlet":
        model = nerlet.load(checkpoint / f"nerlet-{precision}", threads=threads)
        return lambda texts, labels: model.inference(texts, labels, threshold=0.5)  # type: ignore[return-value]
    if kind == "fast_gliner":
        from fast_gliner import FastGLiNER

        path = f"onnx/{_REFERENCE_GRAPHS[precision]}"
        fast = FastGLiNER(str(checkpoint), path, "cpu")
        return lambda texts, labels: fast.predict_entities(list(texts), list(labels))
    if kind == "gliner-cpp":
        return _load_cpp(checkpoint / "onnx", _REFERENCE_GRAPHS[precision])
    if kind == "gliner onnx":
        session = ort.SessionOptions()
        session.intra_op_num_threads = threads
        reference = _load_reference(
            checkpoint / "onnx",
            load_onnx_model=True,
            onnx_model_file=_REFERENCE_GRAPHS[precision],
            session_options=session,
        )
    else:
        import torch

        torch.set_num_threads(threads)
        reference = _load_reference(checkpoint)
    return lambda texts, labels: reference.inference(list(texts), list(labels), threshold=0.5)


def _load_cpp(exports: Path, graph: str) -> Predict:
    from gliner_cpp import SPAN_LEVEL, Config, Model

    values = json.loads((exports / "gliner_config.json").read_text(encoding="utf-8"))
    config = Config(values["max_width"], values["max_len"], SPAN_LEVEL)
    model = Model(str(exports / graph), str(exports / "tokenizer.json"), config)

    def predict(texts: Sequence[str], labels: Sequence[str]) -> list[Entities]:
        # One text a call: all that it is given become one batch, and 256 texts take over 20 GB
        found = [
            row
            for text in texts
            for row in model.inference([text], list(labels), flat_ner=True, threshold=0.5)
        ]
        names = {"start_idx": "start", "end_idx": "end", "class_label": "label"}
        return [[{names.get(key, key): own[key] for key in own} for own in row] for row in found]

    return predict


def _load_reference(folder: Path, **options: object) -> Any:  # noqa: ANN401  (the reference's class)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gliner

        model = gliner.GLiNER.from_pretrained(str(folder), local_files_only=True, **options)
    return model.eval() if hasattr(model, "eval") else model

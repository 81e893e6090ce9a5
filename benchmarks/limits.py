"""How close is a run to the time that its arithmetic alone would take?

    python benchmarks/limits.py [--words 16 64 384] [--threads 1] [--levels avx2 avx512_vnni native]

The int8 bundle of a published shape (`shapes.py`), 5 labels. The arithmetic is counted from the
shapes that a profiled run reports: products of int8, products of floats, attention's two products,
the LSTM. Its time is that count over the peaks that onnxruntime itself reaches here, measured in
the same process: the best of several single products of each kind. The whole is the median time of
`predict_entities`, from string to entities, alternating with the products. The share says how much
is left to gain without better kernels. Beside it stand the nodes that a run executes, after
onnxruntime's own optimisation, and the time outside the graph. Each level (`instruction_sets.py`)
is a process of its own: this processor with instructions hidden, not an older processor. Written:
`results/limits.json`.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import nerlet
from harness import machine_card, print_table, time_alternating
from instruction_sets import LEVELS, NATIVE, current_level, run_at
from nerlet_export.operators import CONTRIB
from peers import prepare
from shapes import make_shape
from texts import make_labels, make_text

_RESULTS = Path(__file__).parent / "results"
# (rows, inputs, outputs) of the products whose best rate is the peak
_PRODUCTS = ((64, 768, 3072), (256, 768, 3072), (512, 1024, 4096), (429, 3072, 768))
_INT8 = {"MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul"}
_FLOAT = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm"}


def main() -> None:
    """Run a process for each level, and write what they measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", default="small")
    parser.add_argument("--words", type=int, nargs="+", default=[16, 64, 384])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=[NATIVE])
    parser.add_argument("--work", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    checkpoint = make_shape(options.shape, options.work / options.shape)
    if options.child:
        print(json.dumps(measure(options, checkpoint / "nerlet-int8")))
        return
    prepare(checkpoint, ["nerlet int8"])
    measured = [run_at(level, [*sys.argv, "--child"]) for level in options.levels]
    results = [row for own in measured for row in own.pop("results")]
    for own in measured:
        print(own["level"], {kind: f"{peak:.0f}" for kind, peak in own["peaks_gflops"].items()})
    print_table(list(results[0]), [list(row.values()) for row in results])
    document = {
        "benchmark": "limits",
        "shape": options.shape,
        "threads": options.threads,
        "machine": machine_card(),
        "levels": measured,
        "results": results,
    }
    (_RESULTS / "limits.json").write_text(json.dumps(document, indent=1) + "\n")


def measure(options: argparse.Namespace, bundle: Path) -> dict[str, Any]:
    """Measure peaks and runs at this process's level."""
    model = nerlet.load(bundle, threads=options.threads)
    labels = make_labels(5)
    calls: dict[str, Callable[[], object]] = {
        f"{words} words": partial(model.predict_entities, make_text(words), labels)
        for words in options.words
    }
    for kind in ("int8", "float"):
        for rows, inputs, outputs in _PRODUCTS:
            run = _open_product(kind, rows, inputs, outputs, options.threads)
            calls[f"{kind} {rows} {inputs} {outputs}"] = run
    timings = time_alternating(calls, rounds=options.rounds, warmup=2)
    peaks = {
        kind: max(
            2 * math.prod(product) / timings[" ".join([kind, *map(str, product)])].median_ms / 1e6
            for product in _PRODUCTS
        )
        for kind in ("int8", "float")
    }
    results = []
    for words in options.words:
        work = count_operations(bundle, make_text(words), labels, options.threads)
        arithmetic = sum(work[kind] / peaks[kind] / 1e6 for kind in peaks)
        outside = outside_graph_ms(model, make_text(words), labels, options.rounds)
        whole = timings[f"{words} words"].median_ms
        results.append(
            {
                "level": current_level(),
                "words": words,
                "nodes": int(work["nodes"]),
                "int8_gflop": round(work["int8"] / 1e9, 3),
                "float_gflop": round(work["float"] / 1e9, 3),
                "arithmetic_ms": round(arithmetic, 2),
                "whole_ms": round(whole, 2),
                "share": round(arithmetic / whole, 3),
                "outside_graph_ms": round(outside, 2),
            }
        )
    return {
        "level": current_level(),
        "instruction_sets": machine_card()["instruction_sets"],
        "peaks_gflops": {kind: round(peak, 1) for kind, peak in peaks.items()},
        "results": results,
    }


def count_operations(bundle: Path, text: str, labels: list[str], threads: int) -> dict[str, float]:
    """Multiplications and additions of one run, and its nodes: {"int8": ..., "float": ...}."""
    plain = ort.InferenceSession
    with TemporaryDirectory() as folder:

        def profiled(
            path: str, options: ort.SessionOptions, **more: object
        ) -> ort.InferenceSession:
            options.enable_profiling = True
            options.profile_file_prefix = f"{folder}/run"
            return plain(path, options, **more)

        ort.InferenceSession = profiled
        try:
            model = nerlet.load(bundle, threads=threads)
        finally:
            ort.InferenceSession = plain
        model.predict_entities(text, labels)
        events = json.loads(Path(model._scorer.graph.sessions.main.end_profiling()).read_text())
    counts = {"int8": 0.0, "float": 0.0, "nodes": 0.0}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kind, count = _count_event(event["args"])
            counts[kind] += count
            counts["nodes"] += 1
    return counts


def outside_graph_ms(model: nerlet.GLiNER, text: str, labels: list[str], rounds: int) -> float:
    """Median time of a call that is not spent in the graph: words, pieces, tensors, decoding."""
    sessions = model._scorer.graph.sessions
    run, inside = sessions.run, [0.0]

    def timed(*args: Any, **options: Any) -> list[Any]:  # noqa: ANN401  (as Sessions.run)
        begin = time.perf_counter()
        found = run(*args, **options)
        inside[0] += time.perf_counter() - begin
        return found

    sessions.run = timed  # type: ignore[method-assign]
    taken = []
    for _ in range(rounds):
        inside[0] = 0.0
        begin = time.perf_counter()
        model.predict_entities(text, labels)
        taken.append(1000 * (time.perf_counter() - begin - inside[0]))
    sessions.run = run  # type: ignore[method-assign]
    return float(np.median(taken))


def _count_event(args: dict[str, Any]) -> tuple[str, float]:
    """Kind and operations of one node that ran."""
    name = args["op_name"]
    inputs = [next(iter(shape.values())) for shape in args["input_type_shape"]]
    outputs = [next(iter(shape.values())) for shape in args["output_type_shape"]]
    if name in _INT8 or name in _FLOAT:
        return "int8" if name in _INT8 else "float", 2.0 * math.prod(outputs[0]) * inputs[0][-1]
    if name == "MultiHeadAttention":
        batch, pieces, width = inputs[0]
        return "float", 4.0 * batch * pieces * pieces * width
    if name == "LSTM":
        steps, batch, width = inputs[0]
        _, directions, _, hidden = outputs[0]
        return "float", 2.0 * steps * batch * directions * 4 * hidden * (width + hidden)
    return "float", 0.0


def _open_product(
    kind: str, rows: int, inputs: int, outputs: int, threads: int
) -> Callable[[], object]:
    """One product alone as a graph, and a call that runs it."""
    rng = np.random.default_rng(0)
    if kind == "int8":
        x = rng.integers(0, 255, (rows, inputs)).astype(np.uint8)
        constants: dict[str, NDArray[Any]] = {
            "w": rng.integers(-64, 64, (inputs, outputs)).astype(np.int8),
            "one": np.array(1, np.float32),
            "scales": np.ones(outputs, np.float32),
            "zero": np.array(128, np.uint8),
        }
        operands = ["x", "w", "one", "scales", "zero"]
        node = helper.make_node("MatMulIntegerToFloat", operands, ["y"], domain=CONTRIB)
    else:
        x = rng.standard_normal((rows, inputs)).astype(np.float32)
        constants = {"w": rng.standard_normal((inputs, outputs)).astype(np.float32)}
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", element, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (rows, outputs))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)]
    document = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(document)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(document.SerializeToString(), options)
    return partial(session.run, ["y"], {"x": x})


if __name__ == "__main__":
    main()

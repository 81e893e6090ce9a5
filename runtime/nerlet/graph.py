"""The ONNX graph: opened on the device asked for, its signature checked, run.

Axis letters: B batch, T pieces, L words, K max width, C labels.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from nerlet.arguments import read_count
from nerlet.batch import Tensor
from nerlet.errors import GraphError
from nerlet.threads import count_usable_threads

CPU = "CPUExecutionProvider"
_PROVIDERS = {"cpu": (CPU,), "cuda": ("CUDAExecutionProvider", CPU)}
_LOG_FATAL = 4  # errors are raised; warnings speak of node placement, not of mistakes


@dataclass(frozen=True, slots=True)
class _Port:
    """Type and number of axes of a graph input or output."""

    dtype: str
    rank: int


_INPUTS = {
    "input_ids": _Port("tensor(int64)", 2),  # (B, T)
    "attention_mask": _Port("tensor(int64)", 2),  # (B, T)
    "words_mask": _Port("tensor(int64)", 2),  # (B, T)
    "text_lengths": _Port("tensor(int64)", 2),  # (B, 1)
    "span_idx": _Port("tensor(int64)", 3),  # (B, L*K, 2)
    "span_mask": _Port("tensor(bool)", 2),  # (B, L*K)
}
_WORD_SHAPES = "word_shapes"
_WORD_SHAPES_PORT = _Port("tensor(int64)", 2)  # (B, T)
_OUTPUT = "logits"
_OUTPUT_PORT = _Port("tensor(float)", 4)  # (B, L, K, C)


class Graph:
    """An open graph; `run` may be called from several threads at once.

    Attributes:
        path: The ONNX file.
        providers: Names of the execution providers that the session got.
        has_word_shapes: The graph takes the optional input `word_shapes`.
        threads: Threads of one run.
    """

    def __init__(
        self,
        open_session: Callable[[int], ort.InferenceSession],
        path: Path,
        max_width: int,
        threads: int,
    ) -> None:
        """Open a session and check its signature.

        Args:
            open_session: Opens the graph with a number of threads.
            path: Where it comes from, for messages.
            max_width: K, as the bundle says.
            threads: Threads of one run.

        Raises:
            GraphError: Inputs or output are not those of a span model of this width.
        """
        session = open_session(threads)
        self.path = path
        self.providers: list[str] = session.get_providers()
        self.threads = threads
        self._session = session
        self._open_session = open_session
        self._one_thread: ort.InferenceSession | None = None
        self._opening = Lock()
        self._stamp = _stamp(path)
        self._max_width = max_width
        _check_inputs({arg.name: arg for arg in session.get_inputs()}, path)
        _check_output({arg.name: arg for arg in session.get_outputs()}, path, max_width)
        optional = {arg.name: arg for arg in session.get_overridable_initializers()}
        self.has_word_shapes = _WORD_SHAPES in optional
        if self.has_word_shapes:
            _check_port(optional[_WORD_SHAPES], _WORD_SHAPES_PORT, path)

    @property
    def device(self) -> str:
        """Where the graph runs: "cpu", "cuda", or the name of another provider."""
        first = self.providers[0]
        return next((name for name, own in _PROVIDERS.items() if own[0] == first), first)

    def run(
        self, feeds: Mapping[str, Tensor], label_count: int, *, one_thread: bool = False
    ) -> NDArray[np.float32]:
        """Return the logits of every span and label, float32, (B, L, K, C).

        Args:
            feeds: Tensors of `make_batch`.
            label_count: C, the most labels in one prompt of the batch.
            one_thread: Run on the caller's thread alone, while other threads do the same; the
                first such call opens the graph once more.

        Raises:
            GraphError: The graph fails, its output has another shape, or its file has been
                replaced before it is opened once more.
        """
        session = self._share_threads() if one_thread else self._session
        try:
            logits: NDArray[np.float32] = session.run([_OUTPUT], dict(feeds))[0]
        except Exception as error:  # onnxruntime's errors have no common base but this
            raise GraphError(
                f"{self.path}: onnxruntime {ort.__version__} failed on inputs of shapes "
                f"{ {name: tensor.shape for name, tensor in feeds.items()} } ({error}); "
                "export the model again, or report this with the message"
            ) from error
        lengths = feeds["text_lengths"]
        expected = (len(lengths), int(lengths.max()), self._max_width, label_count)
        if logits.shape != expected:
            raise GraphError(
                f"{self.path}: expected logits of shape {expected} (texts, words, max_width, "
                f"labels), found {logits.shape}; max_width or the marker ids of the graph differ "
                "from the model's config, export the model again"
            )
        return logits

    def _share_threads(self) -> ort.InferenceSession:
        """The session of runs on one thread each, opened when it is first asked for."""
        with self._opening:
            if self._one_thread is None:
                if _stamp(self.path) != self._stamp:
                    raise GraphError(
                        f"{self.path}: expected the file that was loaded, found another or none; "
                        "load the model again"
                    )
                self._one_thread = self._open_session(1)
            return self._one_thread


def _stamp(path: Path) -> tuple[int, int] | None:
    """What tells whether a file has been replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def open_graph(
    path: Path,
    max_width: int,
    device: str = "cpu",
    providers: Sequence[str] | None = None,
    threads: int | None = None,
) -> Graph:
    """Open an ONNX graph.

    Args:
        path: The ONNX file.
        max_width: K, as the bundle says.
        device: "cpu" or "cuda"; only read where `providers` is None.
        providers: Names of onnxruntime's execution providers, in order of preference.
        threads: Threads of one run; None: as many as the process may use.

    Raises:
        GraphError: The device cannot be had, the file is not a graph, or another signature.
        InputError: `threads` is not a whole number of at least 1.
    """
    wanted = _choose_providers(device, providers)
    count = read_count("threads", threads, default=count_usable_threads())
    return Graph(partial(_open_session, path, wanted), path, max_width, count)


def _open_session(path: Path, wanted: list[str], threads: int) -> ort.InferenceSession:
    try:
        # Denormals are set to zero in the threads of the pool, and in the thread that opens: a
        # thread of its own, so that the caller's arithmetic stays as it was.
        with ThreadPoolExecutor(max_workers=1) as opener:
            session = opener.submit(
                ort.InferenceSession, str(path), _make_options(threads), providers=wanted
            ).result()
    except Exception as error:  # onnxruntime's errors have no common base but this
        raise GraphError(
            f"{path}: expected an ONNX graph, but onnxruntime {ort.__version__} cannot open it "
            f"({error}); download or export the model again, or install a newer onnxruntime"
        ) from error
    missing = [name for name in wanted if name not in session.get_providers()]
    if missing:
        raise GraphError(
            f"{missing[0]}: expected it to run {path}, but onnxruntime {ort.__version__} dropped "
            f"it and kept {session.get_providers()}; {_explain_missing(missing[0])}"
        )
    return session


def _choose_providers(device: str, providers: Sequence[str] | None) -> list[str]:
    """Return the providers asked for, after checking that this onnxruntime has them."""
    if providers is None:
        if device not in _PROVIDERS:
            raise GraphError(
                f"device: expected {' or '.join(_PROVIDERS)}, found {device!r}; "
                "for another accelerator give providers=[...]"
            )
        providers = _PROVIDERS[device]
    if isinstance(providers, str) or not providers:
        raise GraphError(
            f"providers: expected a list of provider names, found {providers!r}; "
            f"give for example providers=[{CPU!r}]"
        )
    available = ort.get_available_providers()
    for name in providers:
        if name not in available:
            raise GraphError(
                f"{name}: expected one of {', '.join(available)}, which is what onnxruntime "
                f"{ort.__version__} has here; {_explain_missing(name)}"
            )
    return list(providers)


def _explain_missing(provider: str) -> str:
    """Return what to do to get a provider."""
    if provider != "CUDAExecutionProvider":
        return "install the onnxruntime package that carries this provider"
    if _is_installed("onnxruntime") and _is_installed("onnxruntime-gpu"):
        return (
            "onnxruntime and onnxruntime-gpu are both installed, and together they mean CPU: run "
            "`pip uninstall -y onnxruntime onnxruntime-gpu`, then `pip install onnxruntime-gpu`"
        )
    if _is_installed("onnxruntime-gpu"):
        return (
            "onnxruntime-gpu is installed but cannot load CUDA: check with nvidia-smi that a GPU "
            "is visible, and that the CUDA and cuDNN versions are those it needs"
        )
    return "run `pip uninstall -y onnxruntime`, then `pip install onnxruntime-gpu`"


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _make_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # a plan per length would grow with every new length
    options.log_severity_level = _LOG_FATAL
    # Threads wait awake for a run's next node, and sleep between runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def _check_inputs(inputs: Mapping[str, ort.NodeArg], path: Path) -> None:
    found = set(inputs)
    if found == set(_INPUTS) - {"span_idx", "span_mask"}:
        raise GraphError(
            f"{path}: expected the inputs of a span model, found those of a token-level model "
            f"({', '.join(inputs)}); this version of nerlet reads span models only"
        )
    if found != set(_INPUTS):
        raise GraphError(
            f"{path}: expected the inputs {', '.join(_INPUTS)}, found {', '.join(inputs)}; "
            "export a span model with one encoder again, with `nerlet-export convert` or GLiNER"
        )
    for name, port in _INPUTS.items():
        _check_port(inputs[name], port, path)


def _check_output(outputs: Mapping[str, ort.NodeArg], path: Path, max_width: int) -> None:
    if _OUTPUT not in outputs:
        raise GraphError(
            f"{path}: expected an output {_OUTPUT}, found {', '.join(outputs)}; "
            "export the model again"
        )
    output = outputs[_OUTPUT]
    _check_port(output, _OUTPUT_PORT, path)
    width = output.shape[2] if output.shape else None
    if isinstance(width, int) and width != max_width:
        raise GraphError(
            f"{path}: expected {_OUTPUT} with max_width {max_width} on axis 2, as the model's "
            f"config says, found {width}; export the model again"
        )


def _check_port(arg: ort.NodeArg, port: _Port, path: Path) -> None:
    """Compare type and rank; a graph may leave its output's rank open."""
    if arg.type != port.dtype or (arg.shape and len(arg.shape) != port.rank):
        raise GraphError(
            f"{path}: expected {arg.name} as {port.dtype} of {port.rank} axes, found {arg.type} "
            f"of {len(arg.shape)} axes {arg.shape}; export the model again"
        )

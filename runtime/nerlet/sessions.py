"""Sessions of onnxruntime: which device, which options, and a second one for many texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime as ort

from nerlet.arguments import read_count
from nerlet.batch import Tensor
from nerlet.errors import BundleError, GraphError
from nerlet.exports import explain_unreadable
from nerlet.threads import count_usable_threads

CPU = "CPUExecutionProvider"
# Fusions of onnxruntime's that make a CPU slower: the fused operators run without vector
# instructions where the operators that they replace use them (2.1 ms against 0.8 for a norm of 420
# pieces of 768).
_SLOW_FUSIONS = frozenset({"SkipLayerNormFusion", "BiasGeluFusion"})
CUDA = "CUDAExecutionProvider"
HOST = "cpu"  # memory that numpy reads
_PROVIDERS = {"cpu": (CPU,), "cuda": (CUDA, CPU)}
# Where the outputs of a provider can stay; of all others they are copied to the host.
_MEMORY = {CUDA: "cuda"}
_TWO_PACKAGES = (
    "onnxruntime and onnxruntime-gpu are both installed, each over the other's files, and that may "
    "mean CPU without a word: run `pip uninstall -y onnxruntime onnxruntime-gpu`, then "
    "`pip install onnxruntime-gpu`"
)
_LOG_FATAL = 4  # errors are raised; warnings speak of node placement, not of mistakes


class Sessions:
    """One graph in one or two sessions; `run` may be called from several threads at once.

    Attributes:
        path: The ONNX file.
        providers: Names of the execution providers that the graph got.
        threads: Threads of one run.
        main: The session of runs on all of them.
    """

    def __init__(
        self, open_session: Callable[[int], ort.InferenceSession], path: Path, threads: int
    ) -> None:
        """Open the first session.

        Args:
            open_session: Opens the graph with a number of threads.
            path: Where it comes from.
            threads: Threads of one run.
        """
        self.path = path
        self.threads = threads
        self.main = open_session(threads)
        self.providers: list[str] = self.main.get_providers()
        self._open_session = open_session
        self._one_thread: ort.InferenceSession | None = None
        self._opening = Lock()
        self._stamp = _stamp(path)

    @property
    def device(self) -> str:
        """Where the graph runs: "cpu", "cuda", or the name of another provider."""
        first = self.providers[0]
        return next((name for name, own in _PROVIDERS.items() if own[0] == first), first)

    @property
    def memory(self) -> str:
        """Where outputs can stay, as onnxruntime calls it: "cuda", or `HOST`."""
        return _MEMORY.get(self.providers[0], HOST)

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, Tensor], *, one_thread: bool = False
    ) -> list[Any]:
        """Return the outputs, as arrays.

        Args:
            outputs: Their names.
            feeds: The inputs.
            one_thread: Run on the caller's thread alone, while other threads do the same; the
                first such call opens the graph once more.

        Raises:
            GraphError: The graph fails, or its file has been replaced before it is opened once
                more.
        """
        is_shared = one_thread and self.threads > 1
        session = self._share_threads() if is_shared else self.main
        with self._explain({name: tensor.shape for name, tensor in feeds.items()}):
            found: list[Any] = session.run(list(outputs), dict(feeds))
        return found

    def run_bound(
        self, outputs: Sequence[str], feeds: Mapping[str, Tensor | ort.OrtValue], memory: str
    ) -> list[ort.OrtValue]:
        """Return the outputs where they are asked for, so that a device's need no copy.

        Args:
            outputs: Their names.
            feeds: The inputs; arrays, and what another session left in this one's memory.
            memory: Of the outputs: `HOST`, or `memory` of this session.

        Raises:
            GraphError: The graph fails.
        """
        arrays = {name: own for name, own in feeds.items() if isinstance(own, np.ndarray)}
        binding = self.main.io_binding()
        with self._explain({name: tensor.shape for name, tensor in arrays.items()}):
            for name, value in feeds.items():
                # Not bind_cpu_input, which does not know optional inputs.
                own = _to_value(arrays[name]) if name in arrays else value
                binding.bind_ortvalue_input(name, own)
            for name in outputs:
                binding.bind_output(name, memory)
            self.main.run_with_iobinding(binding)
            found: list[ort.OrtValue] = binding.get_outputs()
        return found

    @contextmanager
    def _explain(self, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
        """Turn what onnxruntime raises into an error of ours."""
        try:
            yield
        except Exception as error:  # onnxruntime's errors have no common base but this
            raise GraphError(
                f"{self.path}: onnxruntime {ort.__version__} failed on inputs of shapes "
                f"{shapes} ({error}); export the model again, or report this with the message"
            ) from error

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


def open_sessions(
    path: Path,
    device: str = "cpu",
    providers: Sequence[str] | None = None,
    threads: int | None = None,
) -> Sessions:
    """Open an ONNX graph.

    Args:
        path: The ONNX file.
        device: "cpu" or "cuda"; only read where `providers` is None.
        providers: Names of onnxruntime's execution providers, in order of preference.
        threads: Threads of one run; None: as many as the process may use.

    Raises:
        BundleError: The file, or one that holds its weights, is missing.
        GraphError: The device cannot be had, or the file is not a graph.
        InputError: `threads` is not a whole number of at least 1.
    """
    wanted = choose_providers(device, providers)
    count = read_count("threads", threads, default=count_usable_threads())
    return Sessions(partial(_open_session, path, wanted), path, count)


def _to_value(array: Tensor) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def _stamp(path: Path) -> tuple[int, int] | None:
    """What tells whether a file has been replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _open_session(path: Path, wanted: list[str], threads: int) -> ort.InferenceSession:
    try:
        # Denormals are set to zero in the threads of the pool, and in the thread that opens: a
        # thread of its own, so that the caller's arithmetic stays as it was.
        with ThreadPoolExecutor(max_workers=1) as opener:
            session = opener.submit(
                ort.InferenceSession,
                str(path),
                _make_options(threads),
                providers=wanted,
                disabled_optimizers=_SLOW_FUSIONS if wanted == [CPU] else frozenset(),
            ).result()
    except Exception as error:  # onnxruntime's errors have no common base but this
        missing_file = explain_unreadable(path)
        if missing_file is not None:
            raise BundleError(missing_file) from error
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
    session.disable_fallback()  # a run that fails on a device is never repeated on the CPU
    return session


def choose_providers(device: str, providers: Sequence[str] | None) -> list[str]:
    """Return the providers asked for, after checking that this onnxruntime has them.

    Raises:
        GraphError: It has not, or CUDA is asked for and both packages of onnxruntime are installed;
            and what to do.
    """
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
    if CUDA in providers and _is_installed("onnxruntime") and _is_installed("onnxruntime-gpu"):
        raise GraphError(
            f"{CUDA}: expected one package that carries it, found two; {_TWO_PACKAGES}"
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
    if provider != CUDA:
        return "install the onnxruntime package that carries this provider"
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

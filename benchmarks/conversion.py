"""How much memory and time does converting a large model take?

Timed: `nerlet-export convert` in a process of its own, its checks included. Memory is the peak
resident size of that process, torch and all libraries in it. Not timed: making the checkpoint,
which has seeded random weights in the shape of GLiNER-large: DeBERTa-v3-large (24 layers x 1024,
128,004 pieces), words of 512, an LSTM, markerV0.

Run: python benchmarks/conversion.py [--work DIR] [--precisions int8 fp32] [--fp16]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from harness import print_result, print_table
from nerlet.manifest import PRECISIONS
from nerlet_export.checkpoint import Checkpoint, save_checkpoint
from nerlet_export.config import ModelConfig
from nerlet_export.kinds import make_model
from nerlet_export.tiny import ENCODERS, make_tokenizer

_PIECES = 128_004  # with both markers
_ENCODER = {
    **ENCODERS["deberta-v2"],
    "num_hidden_layers": 24,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 512,
    "position_buckets": 256,
    "vocab_size": _PIECES,
    "pad_token_id": 1,
}
# The peak of a child begins at its parent's size, which is less than what is measured here.
_CONVERT = """
import json, resource, sys, time
begin = time.perf_counter()
from nerlet_export.cli import main
code = main(["convert", *sys.argv[1:]])
print(json.dumps({
    "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    "seconds": round(time.perf_counter() - begin),
}))
sys.exit(code)
"""


def make_large_checkpoint(folder: Path) -> None:
    """Write a checkpoint in the shape of GLiNER-large."""
    known = make_tokenizer().get_vocab_size()
    tokenizer = make_tokenizer([f"word{number}" for number in range(_PIECES - 2 - known)])
    tokenizer.add_tokens(["<<ENT>>", "<<SEP>>"])
    config = ModelConfig(
        model_name="large",
        encoder=_ENCODER,
        class_token_index=_PIECES - 2,
        vocab_size=_PIECES,
        hidden_size=512,
        span_mode="markerV0",
        num_rnn_layers=1,
        max_width=12,
        max_len=384,
    )
    torch.manual_seed(0)
    description = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    save_checkpoint(folder, Checkpoint(make_model(config).eval(), tokenizer, description))


def measure(checkpoint: Path, bundle: Path, options: Sequence[str]) -> dict[str, float]:
    """Convert a checkpoint by the command, in a process of its own.

    Args:
        checkpoint: Directory of the checkpoint.
        bundle: Directory for the bundle.
        options: Of the command.

    Returns:
        Gigabytes of resident memory at the peak, seconds, and gigabytes of the bundle.
    """
    command = [sys.executable, "-c", _CONVERT, str(checkpoint), str(bundle), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    size = sum(path.stat().st_size for path in bundle.iterdir())
    return {**json.loads(done.stdout), "bundle_gb": round(size / 1e9, 2)}


def main() -> None:
    """Make the checkpoint, convert it, and print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, help="where files go (default: a temporary folder)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["int8", "fp32"])
    parser.add_argument("--fp16", action="store_true", help="add the graph in half precision")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        checkpoint = Path(folder) / "checkpoint"
        make_large_checkpoint(checkpoint)
        for precision in options.precisions:
            arguments = ["--precision", precision, *(["--fp16"] if options.fp16 else [])]
            figures = measure(checkpoint, Path(folder) / precision, arguments)
            results.append({"precision": precision, "fp16": options.fp16, **figures})
    print_table(list(results[0]), [list(result.values()) for result in results])
    print_result("conversion", results)


if __name__ == "__main__":
    main()

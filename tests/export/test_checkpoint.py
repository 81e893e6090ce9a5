"""Checkpoints on disk: the reference's load here, ours there; others are refused by name."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel

from nerlet.batch import make_batch
from nerlet.errors import BundleError, InputError
from nerlet_export import checkpoint as checkpoint_module
from nerlet_export.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, start_model
from nerlet_export.cli import main
from nerlet_export.samples import make_prompt
from nerlet_export.tiny import ENCODERS, make_checkpoint
from nerlet_export.verify import run_torch
from tests.export.reference_models import (
    load_reference,
    make_reference,
    reference_logits,
    write_encoder,
)

TEXTS = ("Bill Gates founded Microsoft on April 4, 1975.", "Ada 🚀", "a-b c_d e", "x")
LABELS = ("person", "sports team", "Ünïcode")
CONFIG, WEIGHTS, PICKLE = "gliner_config.json", "model.safetensors", "pytorch_model.bin"


def our_logits(checkpoint: Checkpoint) -> np.ndarray:
    """Logits of TEXTS with LABELS, (B, L, K, C)."""
    prompts = [make_prompt(checkpoint, text, LABELS) for text in TEXTS]
    return run_torch(checkpoint, make_batch(prompts, checkpoint.model.config.max_width))


def assert_same_logits(checkpoint: Checkpoint, reference) -> None:
    ours, theirs = our_logits(checkpoint), reference_logits(reference, TEXTS, LABELS)
    assert ours.shape == theirs.shape
    for row, text in enumerate(TEXTS):
        for start in range(len(checkpoint.pieces.encode_units(text.split()))):
            np.testing.assert_allclose(ours[row, start, 0], theirs[row, start, 0], atol=1e-4)
    L, K = ours.shape[1:3]  # the first text is the longest
    inside = np.arange(L)[:, None] + np.arange(K) < L
    np.testing.assert_allclose(ours[0][inside], theirs[0][inside], atol=1e-4)
    assert np.ptp(ours) > 1.0


def edit_config(folder: Path, *drop: str, **changes: object) -> None:
    path = folder / CONFIG
    values = json.loads(path.read_text(encoding="utf-8")) | changes
    for key in drop:
        del values[key]
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints made and saved by the reference: of each encoder one, both with LSTM."""
    folders = {}
    for encoder in ("bert", "deberta-v2"):
        folder = tmp_path_factory.mktemp(encoder)
        model = make_reference(folder / "encoder", encoder=encoder, is_projected=True, has_rnn=True)
        model.save_pretrained(folder / "checkpoint", safe_serialization=True)
        model.save_pretrained(folder / "pickled", safe_serialization=False)
        folders[encoder] = folder
    return folders


@pytest.fixture
def copied(saved: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy a checkpoint, to change it."""

    def copy(encoder: str = "bert", form: str = "checkpoint") -> Path:
        return Path(shutil.copytree(saved[encoder] / form, tmp_path / "checkpoint"))

    return copy


@pytest.mark.parametrize("form", ["checkpoint", "pickled"])
@pytest.mark.parametrize("encoder", ["bert", "deberta-v2"])
def test_both_files_of_weights_are_read(saved, encoder, form):
    folder = saved[encoder] / form
    assert (folder / WEIGHTS).exists() is (form == "checkpoint")
    assert_same_logits(load_checkpoint(folder), load_reference(folder))


def strip_to_old_layout(folder: Path) -> None:
    """Leave what the oldest checkpoints on the hub have: weights, and a config of a few keys."""
    for path in folder.iterdir():
        if path.name not in (CONFIG, PICKLE):
            path.unlink()
    old: tuple[str, ...] = (
        "model_name",
        "name",
        "max_width",
        "hidden_size",
        "dropout",
        "fine_tune",
        "max_len",
    )
    old += ("subtoken_pooling", "span_mode", "max_types", "max_neg_type_ratio", "num_rnn_layers")
    values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    kept = {key: values[key] for key in old} | {"lr_encoder": "1e-5", "train_data": "data.json"}
    (folder / CONFIG).write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize("encoder", ["bert", "deberta-v2"])
def test_old_layout_takes_encoder_and_tokenizer_by_name(copied, encoder):
    """The reference adds three tokens to the encoder's own, so its markers are the last two."""
    folder = copied(encoder, "pickled")
    strip_to_old_layout(folder)
    checkpoint = load_checkpoint(folder)
    config = checkpoint.model.config
    table = checkpoint.model.encoder.words.weight
    assert config.class_token_index == len(table) - 2
    assert checkpoint.pieces.sep_id == len(table) - 1
    assert checkpoint.tokenizer.get_vocab_size() == len(table)
    assert_same_logits(checkpoint, load_reference(folder))


def test_only_the_tokenizer_is_missing(copied, saved):
    """The reference fails here, though the config tells which ids it gave to its markers."""
    folder = copied()
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ValueError, match="out of range"):
        load_reference(folder)
    found = our_logits(load_checkpoint(folder))
    expected = our_logits(load_checkpoint(saved["bert"] / "checkpoint"))
    np.testing.assert_array_equal(found, expected)


def test_encoder_config_without_a_type_is_debertas(copied):
    folder = copied("deberta-v2")
    encoder = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["encoder_config"]
    del encoder["model_type"]
    edit_config(folder, encoder_config=encoder)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.model.config.encoder["model_type"] == "deberta-v2"
    assert_same_logits(checkpoint, load_reference(folder))


def test_nulls_mean_the_default(copied):
    folder = copied()
    edit_config(folder, ent_token=None, max_types=None, sep_token=None)
    config = load_checkpoint(folder).model.config
    assert (config.ent_token, config.sep_token, config.max_types) == ("<<ENT>>", "<<SEP>>", 25)


def test_buffers_of_older_transformers_are_left_out(copied):
    folder = copied()
    state = load_file(folder / WEIGHTS)
    state["token_rep_layer.bert_layer.model.embeddings.position_ids"] = torch.arange(5)
    save_file(state, folder / WEIGHTS)
    load_checkpoint(folder)


@pytest.mark.parametrize("kept", ["shared.weight", "encoder.embed_tokens.weight"])
def test_a_weight_of_two_names_may_be_stored_under_either(tmp_path, kept):
    """T5's table of word pieces; which name stays is up to who wrote the file."""
    checkpoint = make_checkpoint("t5", span_mode="markerV0")
    save_checkpoint(tmp_path, checkpoint)
    state = load_file(tmp_path / WEIGHTS)
    prefix = "token_rep_layer.bert_layer.model."
    stored = [key for key in state if "shared" in key or "embed_tokens" in key]
    assert stored == [f"{prefix}shared.weight"]
    state[prefix + kept] = state.pop(stored[0])
    save_file(state, tmp_path / WEIGHTS)
    np.testing.assert_array_equal(our_logits(load_checkpoint(tmp_path)), our_logits(checkpoint))
    del state[prefix + kept]
    save_file(state, tmp_path / WEIGHTS)
    with pytest.raises(BundleError, match=r"missing 2 \(.*embed_tokens\.weight, .*shared\.weight"):
        load_checkpoint(tmp_path)


def test_half_precision_is_read_as_float32(copied, saved):
    folder = copied()
    state = {key: value.half() for key, value in load_file(folder / WEIGHTS).items()}
    save_file(state, folder / WEIGHTS)
    checkpoint = load_checkpoint(folder)
    assert {parameter.dtype for parameter in checkpoint.model.parameters()} == {torch.float32}
    expected = our_logits(load_checkpoint(saved["bert"] / "checkpoint"))
    np.testing.assert_allclose(our_logits(checkpoint), expected, atol=0.2)


def test_shrink_halves_the_weights_and_keeps_the_card(tmp_path):
    checkpoint = make_checkpoint("bert", word_shapes=True, label_attention="isolated")
    whole, half = tmp_path / "whole", tmp_path / "half"
    save_checkpoint(whole, checkpoint)
    card = {"steps": 7, "threshold": 0.4}
    (whole / "training.json").write_text(json.dumps(card), encoding="utf-8")
    assert main(["shrink", str(whole), str(half)]) == 0
    assert {value.dtype for value in load_file(half / WEIGHTS).values()} == {torch.float16}
    assert json.loads((half / "training.json").read_text(encoding="utf-8")) == card
    loaded = load_checkpoint(half)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert loaded.model.config == checkpoint.model.config
    np.testing.assert_allclose(our_logits(loaded), our_logits(checkpoint), atol=0.2)
    assert main(["shrink", str(half), str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (half / WEIGHTS).read_bytes()


def test_shrink_never_replaces_the_weights_it_reads(tmp_path, capsys):
    save_checkpoint(tmp_path, make_checkpoint("bert"))
    before = (tmp_path / WEIGHTS).read_bytes()
    assert main(["shrink", str(tmp_path), f"{tmp_path}/../{tmp_path.name}"]) == 2
    assert "another directory" in capsys.readouterr().err
    assert (tmp_path / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("settings", [{}, {"hidden_size": 12, "num_rnn_layers": 1}])
def test_ours_load_in_the_reference(tmp_path, encoder, settings):
    checkpoint = make_checkpoint(encoder, span_mode="markerV0", **settings)
    save_checkpoint(tmp_path, checkpoint)
    assert_same_logits(checkpoint, load_reference(tmp_path))


@pytest.mark.parametrize(
    "settings",
    [
        {"span_mode": "paper", "span_head_width": 20},
        {"word_shapes": True, "label_attention": "isolated", "label_pooling": "mean"},
    ],
)
def test_ours_load_here_as_they_were(tmp_path, settings):
    checkpoint = make_checkpoint("bert", **settings)
    save_checkpoint(tmp_path, checkpoint)
    loaded = load_checkpoint(tmp_path)
    assert loaded.model.config == checkpoint.model.config
    np.testing.assert_array_equal(our_logits(loaded), our_logits(checkpoint))


def test_a_new_model_of_an_uncased_encoder_loads_in_the_reference(tmp_path):
    """Its tokenizer changes the case of everything but must still know the markers."""
    source = write_encoder(tmp_path / "encoder", "bert", ["bill", "gates"])
    AutoModel.from_config(AutoConfig.from_pretrained(source)).save_pretrained(source)
    checkpoint = start_model(str(source), {"span_mode": "markerV0", "num_rnn_layers": 0})
    with torch.no_grad():
        for parameter in checkpoint.span_model.heads.parameters():
            parameter.normal_(0.0, 0.2)
    save_checkpoint(tmp_path / "checkpoint", checkpoint)
    assert_same_logits(checkpoint, load_reference(tmp_path / "checkpoint"))


@pytest.mark.parametrize("encoder", ["t5", "mt5", "modernbert"])
def test_a_new_model_starts_with_the_weights_of_its_encoder(tmp_path, encoder):
    """Of T5 with the encoder's alone, though its folder has a decoder's too."""
    source = write_encoder(tmp_path / "encoder", encoder)
    original = AutoModel.from_config(AutoConfig.from_pretrained(source)).eval()
    original.save_pretrained(source)
    model = start_model(str(source), {}).model.encoder.model
    ids = torch.tensor([[10, 20, 30, 40]])
    with torch.no_grad():
        encode = getattr(original, "encoder", original)
        torch.testing.assert_close(model(input_ids=ids)[0], encode(input_ids=ids)[0])
    assert not [name for name in model.state_dict() if name.startswith("decoder.")]


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A plain Hugging Face encoder."""
    source = write_encoder(tmp_path / "encoder", "bert", ["bill", "gates"])
    AutoModel.from_config(AutoConfig.from_pretrained(source)).save_pretrained(source)
    return source


def drop_weights(source: Path, *parts: str) -> None:
    state = load_file(source / WEIGHTS)
    kept = {key: value for key, value in state.items() if not any(part in key for part in parts)}
    assert len(kept) < len(state)
    save_file(kept, source / WEIGHTS, metadata={"format": "pt"})


def test_a_new_model_needs_no_pooler(pretrained):
    drop_weights(pretrained, "pooler.")
    start_model(str(pretrained), {})


def test_a_new_model_needs_a_whole_encoder(pretrained):
    drop_weights(pretrained, "layer.0.output.dense")
    with pytest.raises(
        InputError, match=r"2 weights are .* such as encoder\.layer\.0\.output\.dense\.bias"
    ):
        start_model(str(pretrained), {})


def test_a_new_model_is_the_encoder_that_was_loaded(pretrained, monkeypatch):
    """A loaded encoder that is not what its own config describes."""

    def load(name):
        model = AutoModel.from_pretrained(name)
        model.embeddings.extra = torch.nn.Linear(2, 2)
        return model

    monkeypatch.setattr(checkpoint_module, "load_encoder", load)
    with pytest.raises(InputError, match=r"2 weights are .* such as embeddings\.extra\.bias"):
        start_model(str(pretrained), {})


@pytest.mark.parametrize(
    ("settings", "is_refused"),
    [({}, False), ({"label_attention": "isolated"}, True), ({"label_pooling": "mean"}, True)],
)
def test_markers_apart_from_each_other(tmp_path, settings, is_refused):
    checkpoint = make_checkpoint("bert", **settings)
    save_checkpoint(tmp_path, checkpoint)
    edit_config(tmp_path, sep_token="[SEP]")
    if is_refused:
        with pytest.raises(BundleError, match=r"needs \[SEP\] right after <<ENT>>"):
            load_checkpoint(tmp_path)
    else:
        assert load_checkpoint(tmp_path).pieces.sep_id != checkpoint.pieces.sep_id


def change_weights(folder: Path, *drop: str, add: Mapping[str, torch.Tensor]) -> None:
    state = load_file(folder / WEIGHTS)
    for key in drop:
        del state[key]
    save_file({**state, **add}, folder / WEIGHTS)


def test_missing_weights_are_named(copied):
    folder = copied()
    change_weights(folder, "rnn.lstm.weight_ih_l0", "prompt_rep_layer.3.bias", add={})
    with pytest.raises(
        BundleError, match=r"missing 2 \(prompt_rep_layer\.3\.bias, rnn\.lstm\.weight_ih_l0\)"
    ):
        load_checkpoint(folder)


def test_unknown_weights_are_named(copied):
    folder = copied()
    change_weights(folder, add={"something_else": torch.zeros(2)})
    with pytest.raises(BundleError, match=r"missing none, unknown 1 \(something_else\)"):
        load_checkpoint(folder)


def test_a_weight_of_another_shape_is_named(copied):
    folder = copied()
    change_weights(folder, add={"prompt_rep_layer.3.bias": torch.zeros(3)})
    with pytest.raises(BundleError, match=r"heads\.label\.3\.bias.*\[3\]"):
        load_checkpoint(folder)


OTHERS = {
    "labels_decoder": "gpt2",
    "relations_layer": "biaffine",
    "precomputed_prompts_mode": True,
    "span_mode": "endpoints",
    "subtoken_pooling": "mean",
    "post_fusion_schema": "l2l-l2t",
    "fuse_layers": True,
    "embed_ent_token": False,
    "span_encoder_config": {"model_type": "rnn"},
    "words_splitter_type": "spacy",
    "model_type": "gliner_streaming_span",
}


@pytest.mark.parametrize("key", OTHERS)
def test_other_architectures_are_refused_with_the_reason(copied, key):
    folder = copied()
    edit_config(folder, **{key: OTHERS[key]})
    with pytest.raises(BundleError, match=f"{CONFIG}: {key} is .*{str(OTHERS[key])[:9]}"):
        load_checkpoint(folder)


def test_the_references_own_defaults_are_not_refused(copied):
    folder = copied()
    edit_config(folder, labels_encoder=None, span_encoder_config=None, represent_spans=False)
    load_checkpoint(folder)


def test_an_empty_folder(tmp_path):
    with pytest.raises(BundleError, match=r"gliner_config\.json"):
        load_checkpoint(tmp_path)


def test_no_weights(copied):
    folder = copied()
    (folder / WEIGHTS).unlink()
    with pytest.raises(BundleError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_checkpoint(folder)


@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
def test_a_config_that_is_no_object(copied, text):
    folder = copied()
    (folder / CONFIG).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"gliner_config\.json"):
        load_checkpoint(folder)


@pytest.mark.parametrize(("form", "name"), [("checkpoint", WEIGHTS), ("pickled", PICKLE)])
@pytest.mark.parametrize("kept", [0, 1000])
def test_damaged_weights(copied, form, name, kept):
    folder = copied(form=form)
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])
    with pytest.raises(BundleError, match=f"{name}.*cannot be read"):
        load_checkpoint(folder)


class _Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("touched-by-a-pickle"),))


def test_a_pickle_never_runs_code(copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = copied(form="pickled")
    torch.save({"rnn.lstm.weight_ih_l0": _Payload()}, folder / PICKLE)
    with pytest.raises(BundleError, match=PICKLE):
        load_checkpoint(folder)
    assert not Path("touched-by-a-pickle").exists()


def test_an_encoder_that_cannot_be_had(copied, tmp_path):
    folder = copied()
    edit_config(folder, "encoder_config", model_name=str(tmp_path / "nowhere"))
    with pytest.raises(BundleError, match=r"no encoder_config.*nowhere"):
        load_checkpoint(folder)


def test_a_tokenizer_that_cannot_be_had(copied, tmp_path):
    folder = copied()
    edit_config(folder, model_name=str(tmp_path / "nowhere"))
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(BundleError, match=r"no tokenizer\.json.*nowhere"):
        load_checkpoint(folder)


def test_a_tokenizer_of_another_model(copied):
    folder = copied()
    edit_config(folder, class_token_index=7)
    with pytest.raises(BundleError, match=r"class_token_index 7; the two files"):
        load_checkpoint(folder)


def test_a_tokenizer_without_its_config_is_read_and_described(copied):
    folder = copied()
    (folder / "tokenizer_config.json").unlink()
    checkpoint = load_checkpoint(folder)
    kept = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert checkpoint.tokenizer.to_str() == kept.to_str()
    assert checkpoint.tokenizer_config["pad_token"] == "[PAD]"


def test_isolated_labels_on_an_encoder_without_absolute_positions_are_refused(tmp_path):
    save_checkpoint(tmp_path, make_checkpoint("deberta-v2"))
    edit_config(tmp_path, nerlet={"label_attention": "isolated", "span_head_width": 0})
    with pytest.raises(BundleError, match="built for 'bert' encoders; use 'joint'"):
        load_checkpoint(tmp_path)

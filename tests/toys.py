"""Tokenizers and graphs small enough to know what they must answer.

The toy graph has the reference's signature. Each word and each label is of a kind, by its first
piece; a span's logit for a label is the number of its words of the label's kind, less 10 for each
of another. So the best spans are the longest runs of words of a kind.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import RobertaProcessing, TemplateProcessing

from nerlet.bundle import Manifest, SpecialToken, record_file, write_manifest
from nerlet.words import TITLE

ENT, SEP = "<<ENT>>", "<<SEP>>"
MAX_WIDTH = 4
MAX_LEN = 30
TITLE_BONUS = 3.0

# The first of each is the label.
KINDS = {
    1: ["person", "Bill", "Gates", "Ada"],
    2: ["organization", "Microsoft", "Apple"],
    3: ["date", "April", "1975", "4"],
}
_WORDS = ["founded", "on", "in", "the", "human", "being", "a"]
_CHARACTERS = [chr(code) for code in range(33, 127)] + list("éü日本語")


def make_wordpiece() -> Tokenizer:
    """A cased BERT-like tokenizer: the words above whole, others letter by letter."""
    words = dict.fromkeys([word for kind in KINDS.values() for word in kind] + _WORDS)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *_CHARACTERS]
    pieces += [f"##{char}" for char in _CHARACTERS]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return _add_markers(tokenizer)


def make_byte_bpe() -> Tokenizer:
    """A RoBERTa-like tokenizer: bytes, with a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("B", "i"), ("l", "l"), ("Bi", "ll"), ("\u0120", "Bill"), ("o", "n")]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, *("".join(pair) for pair in merges)]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    return _add_markers(tokenizer)


def make_unigram() -> Tokenizer:
    """A SentencePiece-like tokenizer, as DeBERTa-v3 and XLM-R have it."""
    chars = [(char, -8.0) for char in _CHARACTERS]
    pieces = [("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[UNK]", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -2.0) for kind in KINDS.values() for word in kind[:2]]
    tokenizer = Tokenizer(models.Unigram([*pieces, *chars], unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("\u200b", "")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    return _add_markers(tokenizer)


TOKENIZERS = {"wordpiece": make_wordpiece, "byte_bpe": make_byte_bpe, "unigram": make_unigram}


def _add_markers(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(ENT, special=True), AddedToken(SEP, special=True)])
    return tokenizer


# Axes: B batch, T pieces, L words, N = L*K spans, C labels.
_GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
toy (
    int64[B, T] input_ids, int64[B, T] attention_mask, int64[B, T] words_mask,
    int64[B, one] text_lengths, int64[B, N, two] span_idx, bool[B, N] span_mask
) => (float[B, L, K, C] logits)
{
    zero = Constant <value_int = 0> ()
    unit = Constant <value_int = 1> ()
    first = Constant <value_ints = [0]> ()
    second = Constant <value_ints = [1]> ()
    last = Constant <value_ints = [2]> ()
    ids = Mul (input_ids, attention_mask)
    piece_kinds = Gather (kinds, ids)

    words = ReduceMax <keepdims = 0> (text_lengths)
    past_words = Add (words, unit)
    word_numbers = Range (unit, past_words, unit)
    numbers_column = Unsqueeze (word_numbers, second)
    mask_row = Unsqueeze (words_mask, second)
    is_word = Equal (mask_row, numbers_column)
    at_word = Cast <to = 7> (is_word)
    kinds_row = Unsqueeze (piece_kinds, second)
    word_pieces = Mul (at_word, kinds_row)
    word_kinds = ReduceSum <keepdims = 0> (word_pieces, last)

    is_ent = Equal (ids, ent_id)
    at_ent = Cast <to = 7> (is_ent)
    ents_so_far = CumSum (at_ent, unit)
    ent_numbers = Mul (at_ent, ents_so_far)
    label_count = ReduceMax <keepdims = 0> (ent_numbers)
    past_labels = Add (label_count, unit)
    label_numbers = Range (unit, past_labels, unit)
    labels_column = Unsqueeze (label_numbers, second)
    ents_row = Unsqueeze (ent_numbers, second)
    is_label = Equal (ents_row, labels_column)
    at_label = Cast <to = 7> (is_label)
    end = Constant <value_ints = [9223372036854775807]> ()
    tail = Slice (kinds_row, second, end, last)
    last_column = Slice (kinds_row, first, second, last)
    next_kinds = Concat <axis = 2> (tail, last_column)
    label_pieces = Mul (at_label, next_kinds)
    label_kinds = ReduceSum <keepdims = 0> (label_pieces, last)

    words_column = Unsqueeze (word_kinds, last)
    labels_row = Unsqueeze (label_kinds, second)
    is_match = Equal (words_column, labels_row)
    one = Constant <value_float = 1.0> ()
    penalty = Constant <value_float = -10.0> ()
    BONUS
    values = Where (is_match, match_value, penalty)

    span_bounds = Mul (span_idx, span_kept)
    starts = Slice (span_bounds, first, second, last)
    ends = Slice (span_bounds, second, last, last)
    word_indices = Range (zero, words, unit)
    after = LessOrEqual (starts, word_indices)
    before = GreaterOrEqual (ends, word_indices)
    inside = And (after, before)
    members = Cast <to = 1> (inside)
    scores = MatMul (members, values)
    minus = Constant <value_ints = [-1]> ()
    zeros = Constant <value_ints = [0]> ()
    words_shape = Reshape (words, minus)
    labels_shape = Reshape (label_count, minus)
    shape = Concat <axis = 0> (zeros, words_shape, width, labels_shape)
    logits = Reshape (scores, shape)
}
"""
_KEPT = """
    kept = Cast <to = 7> (span_mask)
    span_kept = Unsqueeze (kept, last)
    span_bounds ="""
_PLAIN_BONUS = "match_value = Identity (one)"
_SHAPE_BONUS = """
    shapes_row = Unsqueeze (word_shapes, second)
    shape_pieces = Mul (at_word, shapes_row)
    own_shapes = ReduceSum <keepdims = 0> (shape_pieces, last)
    is_title = Equal (own_shapes, title)
    at_title = Cast <to = 1> (is_title)
    bonuses = Mul (at_title, title_bonus)
    bonus_column = Unsqueeze (bonuses, last)
    match_value = Add (bonus_column, one)"""


def make_graph(
    tokenizer: Tokenizer, *, word_shapes: bool = False, max_width: int = MAX_WIDTH
) -> onnx.ModelProto:
    """The toy graph for a tokenizer; with word shapes a Title word of a kind counts 3 more."""
    bonus = _SHAPE_BONUS if word_shapes else _PLAIN_BONUS
    text = _GRAPH.replace("BONUS", bonus).replace("    span_bounds =", _KEPT)
    model = onnx.parser.parse_model(text)
    kinds = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    for kind, words in KINDS.items():
        for piece_id in (tokenizer.token_to_id(word) for word in words):
            kinds[piece_id] = kind
    constants: dict[str, object] = {
        "kinds": kinds,
        "ent_id": np.int64(tokenizer.token_to_id(ENT)),
        "width": np.array([max_width]),
    }
    if word_shapes:
        constants |= {"title": np.int64(TITLE), "title_bonus": np.float32(TITLE_BONUS)}
        constants["word_shapes"] = np.zeros((1, 1), dtype=np.int64)
        model.graph.input.append(
            helper.make_tensor_value_info("word_shapes", TensorProto.INT64, ["B", "T"])
        )
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    onnx.checker.check_model(model)
    return model


def write_export(
    directory: Path, *, config: Mapping[str, object] | None = None, word_shapes: bool = False
) -> Path:
    """Write a toy model in the reference's layout, `config` on top of its settings."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = make_wordpiece()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"max_width": MAX_WIDTH, "max_len": MAX_LEN, "model_name": "toy", **(config or {})}
    (directory / "gliner_config.json").write_text(json.dumps(settings), encoding="utf-8")
    onnx.save(make_graph(tokenizer, word_shapes=word_shapes), directory / "model.onnx")
    return directory


def write_bundle(directory: Path, *, word_shapes: bool = False, **changes: object) -> Path:
    """Write a toy bundle of ours, `changes` on top of its manifest."""
    write_export(directory, word_shapes=word_shapes)
    tokenizer = make_wordpiece()
    names = ("gliner_config.json", "tokenizer.json", "model.onnx")
    manifest = Manifest(
        name="toy",
        origin="made by hand",
        license="CC0-1.0",
        precision="fp32",
        max_width=MAX_WIDTH,
        max_len=MAX_LEN,
        special_tokens={
            "ent": SpecialToken(ENT, tokenizer.token_to_id(ENT)),
            "sep": SpecialToken(SEP, tokenizer.token_to_id(SEP)),
        },
        files={name: record_file(directory / name) for name in names},
        word_shapes=word_shapes,
    )
    write_manifest(directory, replace(manifest, **changes))  # type: ignore[arg-type]
    return directory

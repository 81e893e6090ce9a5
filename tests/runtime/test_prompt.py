import warnings
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

import nerlet.prompt as prompt_module
from nerlet.errors import BundleError, InputError
from nerlet.prompt import PieceEncoder, build_prompt, warn_of_lost_words
from tests.toys import ENT, SEP, TOKENIZERS, make_wordpiece


def make_encoder(name: str = "wordpiece") -> PieceEncoder:
    tokenizer = TOKENIZERS[name]()
    return PieceEncoder(tokenizer, tokenizer.token_to_id(ENT), tokenizer.token_to_id(SEP))


ENCODERS = {name: make_encoder(name) for name in TOKENIZERS}
every_encoder = pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)

# Ordinary text, words that yield no pieces in some tokenizer, and pieces of markers.
units = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["Bill", "a label", "\u200b", "\ufe0f", "\x07", "", ENT, SEP, f"x {ENT}{SEP}y"]
    ),
    st.text(alphabet="<>ENTSP ", max_size=24),
)


def build(encoder, labels, words, *, max_len=30, max_positions=None, word_shapes=None):
    return build_prompt(
        encoder,
        encoder.encode_labels(labels),
        encoder.encode_units(words),
        max_len=max_len,
        max_positions=max_positions,
        word_shapes=word_shapes,
    )


@every_encoder
def test_frame_is_what_the_tokenizer_puts_around_a_sequence(encoder):
    whole = encoder._tokenizer.encode(["Bill"], is_pretokenized=True).ids
    assert whole == [*encoder.prefix_ids, *encoder.encode_units(["Bill"])[0], *encoder.suffix_ids]
    assert len(encoder.prefix_ids) == len(encoder.suffix_ids) == 1


def test_a_tokenizer_without_special_tokens_has_no_frame():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
    encoder = PieceEncoder(tokenizer, 1, 2)
    assert (encoder.prefix_ids, encoder.suffix_ids) == ((), ())


def test_words_are_encoded_once(monkeypatch):
    encoder = PieceEncoder(make_wordpiece(), 1, 2)
    expected = encoder.encode_units(["on", "Bill", "x" * 100])
    encode = Mock(wraps=encoder._tokenizer.encode)
    monkeypatch.setattr(encoder, "_tokenizer", Mock(encode=encode))
    found = encoder.encode_units(["Bill", "cat", "x" * 100, "on", "cat"])
    assert encode.call_args.args == (["cat", "x" * 100],)  # long ones are not kept
    assert [found[3], found[0], found[2]] == expected


def test_words_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(prompt_module, "_KEPT_UNITS", 10)
    encoder = PieceEncoder(make_wordpiece(), 1, 2)
    fresh = PieceEncoder(make_wordpiece(), 1, 2)
    for begin in range(0, 40, 3):
        words = [f"w{number}" for number in range(begin, begin + 8)]
        assert encoder.encode_units(words) == fresh._encode_new(words)
        assert len(encoder._known) <= 10


def test_a_tokenizer_that_reads_nothing_is_refused():
    with pytest.raises(BundleError, match="expected pieces for the words"):
        PieceEncoder(Tokenizer(models.BPE()), 1, 2)


@every_encoder
@given(words=st.lists(st.text(alphabet="Bill onü日,.'-19\u200b", max_size=8), max_size=8))
def test_units_have_the_pieces_that_encoding_all_words_at_once_gives(encoder, words):
    encoding = encoder._tokenizer.encode(words, is_pretokenized=True, add_special_tokens=False)
    expected = [
        tuple(
            own for own, word in zip(encoding.ids, encoding.word_ids, strict=True) if word == index
        )
        for index in range(len(words))
    ]
    assert encoder.encode_units(words) == expected


@every_encoder
@given(drawn=st.lists(units, max_size=6))
def test_no_unit_makes_a_marker(encoder, drawn):
    pieces = [piece for ids in encoder.encode_units(drawn) for piece in ids]
    assert encoder.ent_id not in pieces
    assert encoder.sep_id not in pieces


@every_encoder
def test_a_marker_in_a_unit_becomes_ordinary_pieces(encoder):
    (marker,) = encoder.encode_units([ENT])
    assert len(marker) >= 2
    (around,) = encoder.encode_units([f"Bill {ENT} Ada"])
    assert len(around) > len(marker)


def test_a_marker_that_normalisation_makes_becomes_ordinary_pieces():
    tokenizer = TOKENIZERS["unigram"]()
    tokenizer.add_special_tokens([AddedToken("<E>", normalized=True, special=True)])
    encoder = PieceEncoder(tokenizer, tokenizer.token_to_id("<E>"), tokenizer.token_to_id(SEP))
    wide = "\uff1cE\uff1e"  # full-width signs, which NFKC maps to < and >
    (direct,) = [tokenizer.encode([wide], is_pretokenized=True, add_special_tokens=False).ids]
    assert encoder.ent_id in direct
    assert encoder.ent_id not in encoder.encode_units([wide])[0]


def test_a_marker_of_one_character_is_left_out():
    tokenizer = make_wordpiece()
    tokenizer.add_special_tokens([AddedToken("§", special=True)])
    encoder = PieceEncoder(tokenizer, tokenizer.token_to_id("§"), tokenizer.token_to_id(SEP))
    assert encoder.encode_units(["a§", "§"]) == [encoder.encode_units(["a"])[0], ()]


@every_encoder
def test_a_lone_surrogate_is_read_as_a_replacement_character(encoder):
    assert encoder.encode_units(["a\ud800b"]) == encoder.encode_units(["a\ufffdb"])


@every_encoder
def test_a_label_that_yields_no_pieces_is_refused(encoder):
    with pytest.raises(InputError, match=r"labels: .* found ''"):
        encoder.encode_labels(["person", ""])


def test_truncation_and_padding_of_the_tokenizer_are_off():
    tokenizer = make_wordpiece()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=64)
    encoder = PieceEncoder(tokenizer, tokenizer.token_to_id(ENT), tokenizer.token_to_id(SEP))
    assert [len(ids) for ids in encoder.encode_units(["Bill"] * 9)] == [1] * 9


@every_encoder
def test_layout(encoder):
    labels, words = encoder.encode_units(["person", "a date"]), encoder.encode_units(["Bill", "on"])
    prompt = build(encoder, ["person", "a date"], ["Bill", "on"])
    head = [*encoder.prefix_ids, encoder.ent_id, *labels[0], encoder.ent_id, *labels[1]]
    head.append(encoder.sep_id)
    assert prompt.ids.tolist() == [*head, *words[0], *words[1], *encoder.suffix_ids]
    assert prompt.word_starts.tolist() == [len(head), len(head) + len(words[0])]
    assert prompt.kept_words.tolist() == [0, 1]
    assert (prompt.label_count, prompt.lost_words) == (2, 0)
    assert {array.dtype.name for array in (prompt.ids, prompt.word_starts, prompt.kept_words)} == {
        "int64"
    }


@every_encoder
@given(words=st.lists(units, max_size=8))
def test_ids_are_those_of_the_text_without_its_unreadable_words(encoder, words):
    prompt = build(encoder, ["person"], words)
    readable = [index for index, ids in enumerate(encoder.encode_units(words)) if ids]
    assert prompt.kept_words.tolist() == readable
    alone = build(encoder, ["person"], [words[index] for index in readable])
    assert prompt.ids.tolist() == alone.ids.tolist()
    assert prompt.word_starts.tolist() == alone.word_starts.tolist()


def test_wordpiece_drops_zero_width_space():
    prompt = build(ENCODERS["wordpiece"], ["person"], ["Bill", "\u200b", "on"])
    assert prompt.kept_words.tolist() == [0, 2]
    assert prompt.lost_words == 0


@every_encoder
@given(words=st.lists(units, max_size=8), max_len=st.integers(1, 8), extra=st.integers(1, 20))
def test_both_limits_cut_at_a_word_border(encoder, words, max_len, extra):
    whole = build(encoder, ["person"], words)
    room = len(build(encoder, ["person"], []).ids) + extra
    cut = build(encoder, ["person"], words, max_len=max_len, max_positions=room)
    kept = len(cut.kept_words)
    assert len(cut.ids) <= room
    assert kept <= max_len
    assert cut.kept_words.tolist() == whole.kept_words[:kept].tolist()
    assert cut.lost_words == len(whole.kept_words) - kept
    end = len(cut.ids) - len(encoder.suffix_ids)
    assert cut.ids[:end].tolist() == whole.ids[:end].tolist()
    if cut.lost_words and kept < max_len:  # the next word would not have fitted
        border = [*whole.word_starts, len(whole.ids) - len(encoder.suffix_ids)]
        assert border[kept + 1] + len(encoder.suffix_ids) > room


def build_from_first(encoder, words, max_len, max_positions):
    return build_prompt(
        encoder,
        encoder.encode_labels(["person"]),
        encoder.encode_first_words(words, max_len, max_positions),
        max_len=max_len,
        max_positions=max_positions,
        word_count=len(words),
    )


@every_encoder
@given(
    words=st.lists(units | st.just("\u200b"), max_size=30),
    max_len=st.integers(1, 12),
    extra=st.none() | st.integers(1, 20),
)
def test_first_words_make_the_prompt_of_all(encoder, words, max_len, extra):
    room = len(build(encoder, ["person"], []).ids) + extra if extra else None
    whole = build(encoder, ["person"], words, max_len=max_len, max_positions=room)
    found = build_from_first(encoder, words, max_len, room)
    assert found.ids.tolist() == whole.ids.tolist()
    assert found.word_starts.tolist() == whole.word_starts.tolist()
    assert found.kept_words.tolist() == whole.kept_words.tolist()
    if not whole.lost_words:
        assert found.lost_words == 0
    # Behind the cut nobody looks whether a word is readable.
    assert whole.lost_words <= found.lost_words <= len(words) - len(whole.kept_words)


@every_encoder
@pytest.mark.parametrize("max_positions", [None, 16])
def test_words_lost_of_a_long_text_are_counted_without_reading_them(
    encoder, monkeypatch, max_positions
):
    encode = Mock(wraps=encoder.encode_units)
    monkeypatch.setattr(encoder, "encode_units", encode)
    words = ["on", "\u200b", "Bill"] * 5 + ["on"] * 100_000
    prompt = build_from_first(encoder, words, 20, max_positions)
    whole_kept = len(prompt.kept_words)
    readable = len(words) - sum(not ids for ids in encoder.encode_units(words[:15]))
    assert prompt.lost_words == readable - whole_kept > 99_900
    assert sum(len(call.args[0]) for call in encode.mock_calls) < 100


@every_encoder
def test_unreadable_words_behind_a_text_that_fits_are_not_lost(encoder):
    words = ["Bill"] * 4 + [""] * 50
    prompt = build_from_first(encoder, words, 4, None)
    assert (len(prompt.kept_words), prompt.lost_words) == (4, 0)


def test_labels_that_leave_no_room_are_refused():
    encoder = ENCODERS["wordpiece"]
    full = len(build(encoder, ["person", "date"], []).ids)
    with pytest.raises(InputError, match=rf"2 labels takes {full} of the model's {full} positions"):
        build(encoder, ["person", "date"], ["Bill"], max_positions=full)
    kept = build(encoder, ["person", "date"], ["Bill"], max_positions=full + 1).kept_words
    assert kept.tolist() == [0]
    with pytest.raises(InputError, match=rf"2 labels takes {full} of the model's {full} positions"):
        encoder.encode_labels(["person", "date"], full)
    assert len(encoder.encode_labels(["person", "date"], full + 1)) == 2


def test_a_first_word_that_does_not_fit_leaves_no_words():
    prompt = build(ENCODERS["wordpiece"], ["person"], ["bcdefg", "Bill"], max_positions=8)
    assert prompt.kept_words.tolist() == []
    assert prompt.lost_words == 2


def test_every_piece_of_a_word_carries_its_shape():
    words = ["Bill", "xyz", "\u200b", "4"]
    prompt = build(ENCODERS["wordpiece"], ["person"], words, word_shapes=[2, 1, 6, 5])
    assert prompt.shapes.tolist() == [0, 0, 0, 0, 2, 1, 1, 1, 5, 0]
    assert not build(ENCODERS["wordpiece"], ["person"], words).shapes.any()
    assert prompt.shapes.dtype == np.int64


def test_lost_words_are_one_warning():
    with pytest.warns(UserWarning, match=r"^7 words at the end of 2 texts were cut") as caught:
        warn_of_lost_words([0, 3, 4], 30, 512)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "30 words and 512 pieces" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_lost_words([0, 0], 30, None)

"""The reference itself, on the same tokenizers and toy graph: equal words, tensors, results.

Scores differ in the last bits (two sigmoids in float32), so they are compared within 1e-6.
"""

import inspect
import random
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nerlet
from nerlet.batch import make_batch
from nerlet.prompt import PieceEncoder, build_prompt
from nerlet.words import split_words
from tests.toys import ENT, KINDS, MAX_LEN, MAX_WIDTH, SEP, TOKENIZERS, make_wordpiece, write_export

SPECIAL: dict[str, dict[str, Any]] = {
    "wordpiece": {"unk_token": "[UNK]", "pad_token": "[PAD]"},
    # Transformers changes the tokenizer to its own default of this setting, False.
    "byte_bpe": {"unk_token": "<unk>", "pad_token": "<pad>", "add_prefix_space": True},
    "unigram": {"unk_token": "[UNK]", "pad_token": "[PAD]"},
}
VOCABULARY = [word for kind in KINDS.values() for word in kind] + [
    *(
        "on",
        "xyz",
        "naïve",
        "日本語",
        "e-mail",
        "a_b",
        "1.1",
        "don't",
        "Ünïcode",
        "(x)",
        "👩\u200d🚀",
    ),
    *("$5", "&amp;", "\uff21\uff22", "ß", "\u0e01\u0e34", "x" * 120),
]
UNREADABLE = "\u200b"  # no pieces in WordPiece and in our Unigram


pytestmark = pytest.mark.filterwarnings("ignore")  # the reference's and torch's


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The reference's modules, and the reference's model on the toy graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gliner
        from gliner import config, data_processing
        from gliner.data_processing import collator, tokenizer
        from transformers import PreTrainedTokenizerFast

    path = write_export(tmp_path_factory.mktemp("models") / "toy")
    fast = PreTrainedTokenizerFast(tokenizer_object=make_wordpiece(), **SPECIAL["wordpiece"])
    fast.save_pretrained(path)
    return SimpleNamespace(
        split=tokenizer.WhitespaceTokenSplitter(),
        settings=config.UniEncoderSpanConfig(max_width=MAX_WIDTH, max_len=MAX_LEN),
        processor=data_processing.UniEncoderSpanProcessor,
        collator=collator.UniEncoderSpanDataCollator,
        fast_tokenizer=PreTrainedTokenizerFast,
        model=gliner.GLiNER.from_pretrained(
            str(path), load_onnx_model=True, load_tokenizer=True, local_files_only=True
        ),
        ours=nerlet.load(path, threads=1),
    )


def draw_texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    gaps = [" ", " ", " ", "  ", ", ", "\n", ".", "\u2003", "-", "…"]
    texts = []
    for _ in range(count):
        words = rng.choices(VOCABULARY, k=rng.randint(1, 14))
        texts.append("".join(word + rng.choice(gaps) for word in words))
    return texts


def draw_labels(rng: random.Random) -> list[str]:
    labels = ["person", "organization", "date", "human being", "Ünïcode label, in words", "on"]
    return rng.sample(labels, rng.randint(1, 5))


def make_reference_tensors(reference, family, sentences, labels):
    fast = reference.fast_tokenizer(tokenizer_object=TOKENIZERS[family](), **SPECIAL[family])
    processor = reference.processor(reference.settings, fast, None)
    collate = reference.collator(
        reference.settings, data_processor=processor, return_tokens=True, prepare_labels=False
    )
    rows = [{"tokenized_text": words, "ner": None} for words in sentences]
    return collate(rows, entity_types=labels)


def make_our_tensors(family, sentences, labels):
    tokenizer = TOKENIZERS[family]()
    encoder = PieceEncoder(tokenizer, tokenizer.token_to_id(ENT), tokenizer.token_to_id(SEP))
    pieces = encoder.encode_labels(labels)
    prompts = [
        build_prompt(
            encoder, pieces, encoder.encode_units(words), max_len=MAX_LEN, max_positions=None
        )
        for words in sentences
    ]
    return make_batch(prompts, MAX_WIDTH)


def assert_equal_tensors(ours, theirs):
    theirs["input_ids"] *= theirs["attention_mask"]  # the reference pads with the tokenizer's id
    for name, tensor in ours.items():
        found = theirs[name].numpy()
        assert found.dtype == tensor.dtype, name
        np.testing.assert_array_equal(tensor, found, err_msg=name)


def test_words_are_the_references(reference):
    texts = [*draw_texts(1, 300), "", " ", UNREADABLE, "\x00a\ufeffb", "a-_-b", "__", "-a-"]
    for text in texts:
        ours = [(word.text, word.start, word.end) for word in split_words(text)]
        assert ours == list(reference.split(text))


@pytest.mark.parametrize("family", TOKENIZERS)
def test_tensors_are_the_references(reference, family):
    rng = random.Random(2)
    for seed in range(40):
        texts = draw_texts(seed, rng.randint(1, 5))
        sentences = [[word.text for word in split_words(text)] for text in texts]
        sentences = [[word for word in words if word != "\u200d"] for words in sentences]
        labels = draw_labels(rng)
        theirs = make_reference_tensors(reference, family, sentences, labels)
        ours = make_our_tensors(family, sentences, labels)
        assert_equal_tensors(ours, theirs)


@pytest.mark.parametrize("family", ["wordpiece", "unigram"])
def test_tensors_are_those_of_the_text_without_its_unreadable_words(reference, family):
    rng = random.Random(3)
    for _ in range(20):
        words = rng.choices(KINDS[1] + KINDS[2] + ["on", "xyz"], k=rng.randint(1, 8))
        spoiled = [part for word in words for part in (UNREADABLE, word)] + [UNREADABLE]
        theirs = make_reference_tensors(reference, family, [words], ["person"])
        ours = make_our_tensors(family, [spoiled], ["person"])
        assert_equal_tensors(ours, theirs)


def test_an_unreadable_word_shifts_the_reference_but_not_us(reference):
    """The difference that we make on purpose: the reference's own offsets are wrong here."""
    text = f"Bill {UNREADABLE} on Ada"
    assert [own["text"] for own in reference.ours.predict_entities(text, "person")] == [
        "Bill",
        "Ada",
    ]
    assert [own["text"] for own in reference.model.predict_entities(text, ["person"])] != [
        "Bill",
        "Ada",
    ]


def assert_equal_entities(ours, theirs):
    assert [list(own) for own in ours] == [list(own) for own in theirs]
    for own, other in zip(ours, theirs, strict=True):
        assert own == {
            **other,
            "score": pytest.approx(other["score"], abs=1e-6),
            **(
                {"class_probs": pytest.approx(other["class_probs"], abs=1e-6)}
                if "class_probs" in other
                else {}
            ),
        }


def test_entities_are_the_references(reference):
    rng = random.Random(4)
    compared = 0
    for seed in range(150):
        (text,) = draw_texts(1000 + seed, 1)
        text = text.replace("\u200d", "")
        options = {
            "flat_ner": rng.random() < 0.5,
            "multi_label": rng.random() < 0.5,
            "threshold": rng.choice([0.0, 1e-4, 0.3, 0.5, 0.7, 0.9]),
            "return_class_probs": rng.random() < 0.5,
        }
        labels = draw_labels(rng)
        theirs = reference.model.predict_entities(text, labels, **options)
        assert_equal_entities(reference.ours.predict_entities(text, labels, **options), theirs)
        compared += len(theirs)
    assert compared > 500


def list_positional(method) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(method).parameters.values()
    return [own.name for own in parameters if own.kind in kinds]


@pytest.mark.parametrize("name", ["inference", "predict_entities"])
def test_arguments_by_position_are_the_references(reference, name):
    theirs = list_positional(getattr(type(reference.model), name))
    assert len(theirs) > 6
    assert list_positional(getattr(nerlet.GLiNER, name)) == theirs


def test_the_older_name_takes_at_least_the_references_positions(reference):
    theirs = list_positional(type(reference.model).batch_predict_entities)
    ours = list_positional(nerlet.GLiNER.batch_predict_entities)
    assert ours[: len(theirs)] == theirs


def test_every_form_of_arguments_means_the_same(reference):
    texts = ["Bill Gates", "", "Ada on Apple 4 1975", "on"]
    spans = [[{"start": 0, "end": 4}], [], [{"start": 0, "end": 3}, {"start": 1, "end": 2}], []]
    for arguments in (
        {"labels": ["date", "person", "date"]},
        {"labels": {"who": "person", "when": "date"}},
        {"labels": [["person"], ["date"], {"firm": "organization", "day": "date"}, ["person"]]},
        {"labels": "person"},
        {"labels": ["person"], "input_spans": spans},
    ):
        ours = reference.ours.inference(texts, threshold=0.5, **arguments)
        theirs = reference.model.inference(texts, threshold=0.5, **arguments)
        for own, other in zip(ours, theirs, strict=True):
            assert_equal_entities(own, other)


def test_options_per_text_mean_the_same(reference):
    texts = ["Bill Gates Ada", "April 4 Ada", "Bill Gates"]
    options = {
        "threshold": [0.5, 0.8, 0.7],
        "flat_ner": [False, True, False],
        "multi_label": [True, False, False],
    }
    ours = reference.ours.inference(texts, ["person", "Ada", "date"], **options)
    theirs = reference.model.inference(texts, ["person", "Ada", "date"], **options)
    for own, other in zip(ours, theirs, strict=True):
        assert_equal_entities(own, other)


def test_long_texts_are_cut_where_the_reference_cuts(reference):
    text = "Ada on " * MAX_LEN
    theirs = reference.model.predict_entities(text, ["person"])
    with pytest.warns(UserWarning, match=f"^{MAX_LEN} words at the end of 1 texts were cut"):
        ours = reference.ours.predict_entities(text, ["person"])
    assert_equal_entities(ours, theirs)

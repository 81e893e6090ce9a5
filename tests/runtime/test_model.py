import gc
import os
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerlet
from nerlet.decode import Span, select_spans
from nerlet.errors import GraphError, InputError
from nerlet.sessions import Sessions, open_sessions
from nerlet.words import as_words
from tests.toys import ENT, KINDS, MAX_LEN, SEP, write_bundle, write_export

TEXT = "Bill Gates founded Microsoft on April 4, 1975."
LABELS = ["person", "organization", "date"]


def score(words: int):
    """What the toy graph gives to a span of so many words of the label's kind."""
    return pytest.approx(1 / (1 + np.exp(-words)), abs=1e-6)


def pairs(entities) -> list[tuple[str, str]]:
    return [(entity["text"], entity["label"]) for entity in entities]


def test_entities_of_a_sentence(toy):
    entities = toy.predict_entities(TEXT, LABELS)
    assert entities == [
        {"start": 0, "end": 10, "text": "Bill Gates", "label": "person", "score": score(2)},
        {"start": 19, "end": 28, "text": "Microsoft", "label": "organization", "score": score(1)},
        {"start": 32, "end": 39, "text": "April 4", "label": "date", "score": score(2)},
        {"start": 41, "end": 45, "text": "1975", "label": "date", "score": score(1)},
    ]
    assert all(list(own) == ["start", "end", "text", "label", "score"] for own in entities)
    assert {type(value) for value in entities[0].values()} == {int, str, float}


def test_nested_entities_by_start_then_best_first(toy):
    found = toy.predict_entities("Bill Gates", ["person"], flat_ner=False)
    assert [(own["text"], own["score"]) for own in found] == [
        ("Bill Gates", score(2)),
        ("Bill", score(1)),
        ("Gates", score(1)),
    ]


def test_a_span_with_several_labels(toy):
    labels = ["person", "Bill"]  # of one kind, so equal in every score
    assert pairs(toy.predict_entities("Ada", labels)) == [("Ada", "person")]
    several = toy.predict_entities("Ada", labels, multi_label=True)
    assert pairs(several) == [("Ada", "person"), ("Ada", "Bill")]


def test_offsets_are_code_points_of_the_original(toy):
    text = "👩‍🚀 Bill\u200b Gates e\u0301 \u00a0Microsoft"
    found = toy.predict_entities(text, LABELS)
    assert pairs(found) == [("Bill\u200b Gates", "person"), ("Microsoft", "organization")]
    assert all(text[own["start"] : own["end"]] == own["text"] for own in found)


words = st.sampled_from([*(word for kind in KINDS.values() for word in kind), "on", "é", "\u200b"])


@given(
    st.lists(st.tuples(words, st.sampled_from([" ", "  ", ", ", "\n", "\u2003", "-"])), max_size=12)
)
def test_every_entity_is_a_slice_of_its_text(toy, drawn):
    text = "".join(word + gap for word, gap in drawn)
    for own in toy.predict_entities(text, LABELS, flat_ner=False, multi_label=True, threshold=0):
        assert text[own["start"] : own["end"]] == own["text"] != ""


@given(st.lists(words, min_size=1, max_size=12), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_a_higher_threshold_only_leaves_out(toy, drawn, one, other, flat_ner):
    low, high = sorted([one, other])
    text = " ".join(drawn)
    below = toy.predict_entities(text, LABELS, flat_ner=flat_ner, threshold=low)
    above = toy.predict_entities(text, LABELS, flat_ner=flat_ner, threshold=high)
    assert above == [own for own in below if np.float32(own["score"]) > np.float32(high)]


@pytest.mark.parametrize("blank", ["", "  ", "\n\t", "\u00a0", None, 3, float("nan"), b"Bill", []])
def test_a_blank_text_or_no_string_gives_nothing_in_its_place(toy, blank):
    assert toy.predict_entities(blank, LABELS) == []
    found = toy.inference(["Ada", blank, "Apple"], LABELS)
    assert [pairs(own) for own in found] == [[("Ada", "person")], [], [("Apple", "organization")]]


def test_a_text_without_readable_words_gives_nothing(toy):
    assert toy.inference(["\u200b", "\ufffd\u200b", "\x07"], LABELS) == [[], [], []]
    assert toy.inference([], LABELS) == []


def test_texts_may_be_a_string_or_any_iterable(toy):
    assert toy.inference("Ada", "person") == [toy.predict_entities("Ada", "person")]
    assert toy.inference((text for text in ["Ada"]), ("person",)) == toy.inference(
        ["Ada"], "person"
    )
    assert toy.batch_predict_entities(["Ada"], ["person"]) == toy.inference(["Ada"], ["person"])


def test_labels_drop_their_duplicates(toy):
    found = toy.predict_entities(TEXT, ["date", "person", "date"], return_class_probs=True)
    assert list(found[0]["class_probs"]) == ["person", "date"]


def test_a_described_label_is_prompted_by_its_description(toy):
    labels = {"who": "person", "firm": "organization"}
    assert pairs(toy.predict_entities(TEXT, labels)) == [
        ("Bill Gates", "who"),
        ("Microsoft", "firm"),
    ]


def test_labels_for_each_text(toy):
    texts = ["Ada on Apple", "", "Ada on Apple"]
    found = toy.inference(texts, [["person"], ["date"], {"firm": "organization", "day": "date"}])
    assert [pairs(own) for own in found] == [[("Ada", "person")], [], [("Apple", "firm")]]


def test_options_for_each_text(toy):
    texts = ["Bill Gates"] * 4
    found = toy.inference(
        texts,
        ["person", "Ada"],
        threshold=[None, 0.8, 0.9, 0.8],
        flat_ner=[False, False, True, True],
        multi_label=[False, False, False, True],
    )
    assert [pairs(own) for own in found] == [
        [("Bill Gates", "person"), ("Bill", "person"), ("Gates", "person")],
        [("Bill Gates", "person")],
        [],
        [("Bill Gates", "person"), ("Bill Gates", "Ada")],
    ]


def test_the_threshold_is_the_bundles_own_or_a_half(toy, toy_path):
    assert toy.threshold == 0.5
    model = nerlet.GLiNER(replace(toy.bundle, threshold=0.8), toy._scorer.graph)
    assert model.threshold == 0.8
    assert pairs(model.predict_entities(TEXT, LABELS)) == [
        ("Bill Gates", "person"),
        ("April 4", "date"),
    ]
    assert len(model.predict_entities(TEXT, LABELS, threshold=0.5)) == 4
    assert toy.manifest is not None
    assert toy.bundle.path == toy_path


def test_labels_have_the_bundles_own_thresholds(toy):
    own = {"person": 0.8, "a human being": 0.9, "organization": 0.75}
    model = nerlet.GLiNER(replace(toy.bundle, label_thresholds=own), toy._scorer.graph)
    # A span of two words scores 0.88, of one 0.73.
    kept = ["Bill Gates", "April 4", "1975"]
    assert [pair[0] for pair in pairs(model.predict_entities(TEXT, LABELS))] == kept
    assert len(model.predict_entities(TEXT, LABELS, threshold=0.5)) == 4
    # What the model reads counts, not what the caller calls it.
    described = {"person": "a human being", "when": "date"}
    assert {label for _, label in pairs(model.predict_entities(TEXT, described))} == {"when"}
    assert model.predict_words([["Ada"], ["1975"]], LABELS) == [[], [Span(0, 1, 2, score(1))]]


def test_a_callers_thresholds_of_labels_come_before_the_bundles_own(toy):
    own = {"person": 0.8, "date": 0.9}
    model = nerlet.GLiNER(replace(toy.bundle, label_thresholds=own), toy._scorer.graph)
    found = model.predict_entities(TEXT, LABELS, threshold={"date": 0.5, "unasked": 1})
    assert [text for text, _ in pairs(found)] == ["Bill Gates", "Microsoft", "April 4", "1975"]
    each = model.inference(["Ada 1975"] * 3, LABELS, threshold=[{"person": 0.5}, None, 0.7])
    assert [[text for text, _ in pairs(own)] for own in each] == [["Ada"], [], ["Ada", "1975"]]


@pytest.mark.parametrize("threshold", [{"person": 2}, {"person": None}, [{"person": "0.5"}]])
def test_a_bad_threshold_of_a_label_is_named(toy, threshold):
    with pytest.raises(InputError, match=r"threshold\['person'\]: expected a number from 0 to 1"):
        toy.inference(["Ada"], LABELS, threshold=threshold)


@pytest.mark.parametrize("threshold", [0.5, {"person": 0.8}])
def test_scored_words_decode_to_the_predicted_ones(toy, threshold):
    # A word without pieces is not read, so that places of words shift.
    sentences = [["Ada", "\u200b", "Bill", "Gates", "1975"], [], ["\u200b"], ["Microsoft"] * 40]
    with pytest.warns(UserWarning, match="10 words"):
        scored = toy.score_words(sentences, LABELS, threshold=threshold)
    assert [len(own) > 0 for own in scored] == [True, False, False, True]
    spans = [select_spans(own, nested=False, multi_label=False) for own in scored]
    with pytest.warns(UserWarning, match="10 words"):
        assert spans == toy.predict_words(sentences, LABELS, threshold=threshold)
    assert sum(map(len, scored)) > sum(map(len, spans))


def test_a_score_equal_to_the_threshold_is_left_out(toy):
    (entity,) = toy.predict_entities("Ada", ["person"])
    assert toy.predict_entities("Ada", ["person"], threshold=entity["score"]) == []
    assert toy.predict_entities("Ada", ["person"], threshold=np.float32(0.7)) == [entity]
    assert toy.predict_entities("Ada", ["person"], threshold=1) == []


def test_class_probs_are_the_five_best_labels(toy):
    labels = ["date", "organization", "on", "person", "in", "Ada"]
    (entity,) = toy.predict_entities("Bill", labels, return_class_probs=True)
    assert list(entity) == ["start", "end", "text", "label", "score", "class_probs"]
    assert list(entity["class_probs"])[:2] == ["person", "Ada"]
    assert len(entity["class_probs"]) == 5
    assert entity["class_probs"]["person"] == entity["score"]


def test_given_spans_are_the_only_ones_found(toy):
    spans = [[{"start": 0, "end": 4}, {"start": 19, "end": 28}, {"start": 33, "end": 45}]]
    assert pairs(toy.predict_entities(TEXT, LABELS, input_spans=spans)) == [
        ("Bill", "person"),
        ("Microsoft", "organization"),
    ]
    assert toy.inference([TEXT, TEXT], LABELS, input_spans=[[], spans[0]])[0] == []


def test_markers_in_a_text_a_word_or_a_label_make_none(toy):
    plain = toy.predict_entities("Ada on Apple", LABELS)
    assert toy.predict_entities(f"Ada on Apple {ENT} {SEP}{ENT}", LABELS) == plain
    labels = [f"person {ENT} date", f"{SEP} x", "organization"]
    assert [own["text"] for own in toy.predict_entities("Ada Apple", labels)] == ["Ada", "Apple"]
    assert toy.predict_words([["Ada", ENT, f"{SEP}Ada"]], ["person"]) == [
        [Span(0, 1, 0, score(1))],
    ]


def test_word_shapes_reach_the_graph(shaped_toy):
    found = shaped_toy.predict_entities("Bill 1975 McBill", ["person", "date"])
    assert [(own["text"], own["score"]) for own in found] == [
        ("Bill", score(4)),
        ("1975", score(1)),
    ]


def test_given_words_are_neither_joined_nor_split(toy):
    sentences = [["Bill", "\u200b", "Gates", "on-Apple"], [], ["\u200b"], ["Bill Gates", "1975"]]
    assert toy.predict_words(sentences, ["date", "person"]) == [
        [Span(0, 3, 1, score(2))],
        [],
        [],
        [Span(0, 1, 1, score(1)), Span(1, 2, 0, score(1))],
    ]


def test_given_words_take_the_options_of_inference(toy):
    found = toy.predict_words(
        [["Ada", "Ada"]] * 3, "person", nested=[True, True, False], threshold=[0.5, 0.8, 0.9]
    )
    assert found == [
        [Span(0, 2, 0, score(2)), Span(0, 1, 0, score(1)), Span(1, 2, 0, score(1))],
        [Span(0, 2, 0, score(2))],
        [],
    ]


def test_long_texts_are_cut_at_a_word_with_one_warning(toy):
    long = "on " * (MAX_LEN - 1) + "Ada Bill Gates"
    with pytest.warns(UserWarning, match="^4 words at the end of 2 texts were cut") as caught:
        found = toy.inference([long, "Ada", long], ["person"])
    assert [pairs(own) for own in found] == [[("Ada", "person")]] * 3
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy.predict_entities("on " * MAX_LEN, ["person"])


def test_a_huge_text_is_not_encoded_to_its_end(shaped_toy, monkeypatch):
    encode = Mock(wraps=shaped_toy._scorer.encoder.encode_units)
    monkeypatch.setattr(shaped_toy._scorer.encoder, "encode_units", encode)
    text = "Ada " + "on " * 10_000
    with pytest.warns(UserWarning, match=f"^{10_001 - MAX_LEN} words at the end of 1 texts"):
        found = shaped_toy.predict_entities(text, ["person"])
    assert pairs(found) == [("Ada", "person")]
    assert sum(len(call.args[0]) for call in encode.mock_calls) < 3 * MAX_LEN


def test_a_warning_names_the_caller_of_every_method(toy):
    long = ["on"] * (MAX_LEN + 1)
    for call in (
        lambda: toy.predict_entities(" ".join(long), "person"),
        lambda: toy.batch_predict_entities(" ".join(long), "person"),
        lambda: toy.predict_words([long], "person"),
    ):
        with pytest.warns(UserWarning, match="^1 words") as caught:
            call()
        assert [own.filename for own in caught] == [__file__]


def test_the_positions_of_the_encoder_count_the_prompt(tmp_path):
    model = nerlet.load(write_bundle(tmp_path / "toy", max_positions=9), threads=1)
    assert pairs(model.predict_entities("Ada on Ada", "person")) == [("Ada", "person")] * 2
    with pytest.warns(UserWarning, match=r"^1 words .* 9 pieces with the labels"):
        assert model.predict_entities("on xyz Ada", "person") == []
    with pytest.raises(InputError, match=r"labels: .* leaves no room for a word"):
        model.predict_entities("Ada", LABELS * 2 + ["Apple"])
    with pytest.raises(InputError, match=r"labels: .* leaves no room for a word"):
        model.predict_words([[]], LABELS * 2 + ["Apple"])  # as bad labels are, without any word


@pytest.mark.parametrize(
    "labels",
    [
        *(None, [], (), {}, "", " ", ["person", ""], [""], [None], [3], 3, b"person"),
        *({"a": ""}, {"": "a"}, {"a": None}, {1: "a"}, {"a": "x", "b": "x"}),
        *([[]], [["person"], "date"]),
    ],
)
def test_bad_labels_are_refused(toy, labels):
    for texts in ([TEXT], [""]):
        with pytest.raises(InputError, match=r"^labels"):
            toy.inference(texts, labels)


@pytest.mark.parametrize(
    "threshold", [-0.1, 1.1, float("nan"), float("inf"), "0.5", True, [0.5, 2]]
)
def test_bad_thresholds_are_refused(toy, threshold):
    with pytest.raises(InputError, match=r"^threshold: expected a number from 0 to 1, found"):
        toy.inference([TEXT, TEXT], LABELS, threshold=threshold)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": [0.5]}, r"^threshold: .* a list of 2, .* found a list of 1"),
        ({"flat_ner": [True] * 3}, r"^flat_ner: .* found a list of 3"),
        ({"flat_ner": "no"}, "^flat_ner: expected True or False, found 'no'"),
        ({"multi_label": [True]}, r"^multi_label: .* found a list of 1"),
        ({"multi_label": 1}, "^multi_label: expected True or False, found 1"),
        ({"labels": [["person"]]}, r"^labels: .* found a list of 1"),
        ({"input_spans": [[]]}, r"^input_spans: .* found a list of 1"),
        ({"input_spans": [[(0, 4)], []]}, "^input_spans: expected for each text a list of dicts"),
        ({"input_spans": 3}, "^input_spans: expected for each text a list of dicts"),
        ({"batch_size": 0}, "^batch_size: expected a whole number of at least 1, found 0"),
        ({"texts": 3}, "^texts: expected a string or a list of strings, found int"),
        ({"texts": None}, "^texts: "),
        ({"texts": b"Ada"}, "^texts: "),
        ({"nested": True}, "^nested: expected no such argument, found True"),
        ({"return_vectors": True}, "^return_vectors: expected None or False"),
    ],
)
def test_bad_arguments_are_refused_by_name(toy, arguments, message):
    with pytest.raises(InputError, match=message):
        toy.inference(**{"texts": [TEXT, TEXT], "labels": LABELS, **arguments})


def test_unknown_arguments_are_refused_by_every_method(toy, toy_path):
    for call in (
        lambda: toy.predict_entities(TEXT, LABELS, colour="red"),
        lambda: toy.batch_predict_entities([TEXT], LABELS, colour="red"),
        lambda: nerlet.GLiNER.from_pretrained(toy_path, colour="red"),
    ):
        with pytest.raises(InputError, match=r"^colour: expected no such argument"):
            call()


def test_empty_arguments_of_the_reference_change_nothing(toy):
    found = toy.predict_entities(TEXT, LABELS, return_vectors=False, packing_config=None)
    assert found == toy.predict_entities(TEXT, LABELS)


def test_arguments_after_the_batch_size_go_by_position(toy):
    spans = [[{"start": 0, "end": 4}]]
    arguments = (True, None, False, 8, None, spans, True)
    (found,) = toy.inference([TEXT], LABELS, *arguments)
    assert pairs(found) == [("Bill", "person")]
    assert next(iter(found[0]["class_probs"])) == "person"


@pytest.mark.parametrize("packing", [object(), {"a": 1}, [], {}, 0])
def test_packing_is_refused(toy, packing):
    with pytest.raises(InputError, match=r"^packing_config: expected None or False, found"):
        toy.inference([TEXT], LABELS, packing_config=packing)


@pytest.mark.parametrize("sentences", [3, "Ada", {"a": 1}, ["Ada"], [["Ada", 3]], [None]])
def test_bad_sentences_are_refused(toy, sentences):
    with pytest.raises(InputError, match=r"^sentences"):
        toy.predict_words(sentences, LABELS)


def test_a_label_without_pieces_is_refused(toy):
    with pytest.raises(InputError, match=r"^labels: expected labels with visible characters"):
        toy.predict_entities(TEXT, ["person", "\u200d"])


def test_a_label_set_is_encoded_once(toy, monkeypatch):
    encode = Mock(wraps=toy._scorer.encoder.encode_labels)
    monkeypatch.setattr(toy._scorer.encoder, "encode_labels", encode)
    for _ in range(2):
        toy.inference(["Ada", "Apple", "on"], ["seen once", "person"])
        toy.inference(["Ada", "Apple"], [["seen alone"], ["seen once", "person"]])
    seen = [call.args[0] for call in encode.mock_calls]
    assert seen == [("seen once", "person"), ("seen alone",)]
    many = [[f"number {n}"] for n in range(100)]  # more than are kept between calls
    encode.reset_mock()
    toy.inference(["Ada"] * 100, many)
    assert [call.args[0] for call in encode.mock_calls] == [tuple(own) for own in many]


def test_a_model_that_nobody_holds_is_gone_at_once(tmp_path):
    write_bundle(tmp_path)
    model = nerlet.load(tmp_path, threads=1)
    model.predict_entities("Ada", LABELS)
    alive = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert alive() is None
    finally:
        gc.enable()


def test_a_graph_that_was_replaced_since_is_not_opened_again(tmp_path):
    write_bundle(tmp_path)
    model = nerlet.load(tmp_path, threads=2)
    os.utime(tmp_path / "model.onnx", ns=(0, 0))
    assert model.predict_entities("Ada", LABELS)
    with pytest.raises(GraphError, match=r"model\.onnx: expected the file that was loaded"):
        model.inference(["Ada", "Bill"], LABELS)


def test_a_cpu_runs_each_text_alone_and_a_gpu_like_lengths_together(toy, monkeypatch):
    texts = ["Ada", TEXT, "", "\u200b", "Bill Gates", "Apple on 1975", "on"] * 3
    sets = [LABELS, ["person"], ["date", "organization"]] * 7
    run = Mock(wraps=toy._scorer.graph.run)
    monkeypatch.setattr(toy._scorer.graph, "run", run)
    alone = toy.inference(texts, sets)
    assert [call.args[0]["text_lengths"].size for call in run.mock_calls] == [1] * 15
    run.reset_mock()
    monkeypatch.setattr(Sessions, "device", "cuda")
    assert toy.inference(texts, sets, batch_size=4) == alone
    lengths = [call.args[0]["text_lengths"].ravel().tolist() for call in run.mock_calls]
    assert sum(map(len, lengths)) == 15
    assert max(map(len, lengths)) == 4
    assert all(max(one) <= max(other) for one, other in pairwise(lengths))


def test_many_texts_run_on_several_threads_and_score_as_alone(tmp_path):
    write_bundle(tmp_path)
    model = nerlet.load(tmp_path, threads=3)
    texts = [TEXT, "", "Ada", "Apple on 1975 " * 9, "\u200b", "Bill Gates"] * 20
    alone = [model.predict_entities(text, LABELS) for text in texts]
    assert model._scorer.graph.sessions._one_thread is None  # opened for many texts only
    assert model.inference(texts, LABELS) == alone
    assert model._scorer.graph.sessions._one_thread is not None
    assert list(model.stream(iter(texts), LABELS)) == alone
    assert list(nerlet.load(tmp_path, threads=1).stream(texts, LABELS)) == alone


def test_a_stream_is_endless_and_gives_what_single_calls_give(toy):
    def texts():
        while True:
            yield from (TEXT, None, "Ada Bill", " ")

    own = {"threshold": 0.2, "flat_ner": False, "multi_label": True, "return_class_probs": True}
    found = toy.stream(texts(), LABELS, **own)
    first = [next(found) for _ in range(40)]
    assert first[:4] == [
        toy.predict_entities(TEXT, LABELS, **own),
        [],
        toy.predict_entities("Ada Bill", LABELS, **own),
        [],
    ]
    assert first == first[:4] * 10
    found.close()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_stream_of_any_device_keeps_the_order(toy, monkeypatch, device):
    monkeypatch.setattr(Sessions, "device", device)
    texts = ["Ada", TEXT, "", "Bill Gates on 1975", "on"] * 30
    expected = toy.inference(texts, LABELS)
    assert list(toy.stream(iter(texts), LABELS, batch_size=2)) == expected


def test_a_stream_checks_its_arguments_before_it_reads(toy):
    def never():
        raise AssertionError("read")
        yield

    for labels, threshold in (([], None), (["a"], 2), (["\u200b"], None)):
        with pytest.raises(InputError):
            toy.stream(never(), labels, threshold=threshold)
    with pytest.raises(InputError, match="batch_size: expected"):
        toy.stream(never(), LABELS, batch_size=0)
    with pytest.raises(InputError, match="texts: expected"):
        toy.stream("one text", LABELS)


def test_a_stream_warns_of_each_text_that_was_cut(toy):
    found = toy.stream(["Ada", "Ada " * (MAX_LEN + 3), "on", "Ada " * (MAX_LEN + 5)], LABELS)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(list(found)) == 4
    assert [str(own.message)[:12] for own in told] == ["3 words at t", "5 words at t"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_blank_texts_alone(toy, monkeypatch, device):
    monkeypatch.setattr(Sessions, "device", device)
    assert toy.inference(["", " ", "\u200b"], LABELS) == [[], [], []]
    assert toy.inference([], LABELS) == []
    assert list(toy.stream([], LABELS)) == []


def test_another_splitter(toy):
    def split_at_bars(text):
        offsets = np.cumsum([0] + [len(part) + 1 for part in text.split("|")]).tolist()
        return [
            replace(word, start=start, end=start + len(word.text))
            for word, start in zip(as_words(text.split("|")), offsets, strict=False)
        ]

    model = nerlet.GLiNER(toy.bundle, toy._scorer.graph, split_at_bars)
    assert pairs(model.predict_entities("on|Bill Gates|Apple", LABELS)) == [
        ("Bill Gates", "person"),
        ("Apple", "organization"),
    ]


def test_calls_from_several_threads(toy):
    texts = [TEXT, "Ada", "Apple on 1975", "Bill Gates Ada"] * 25
    expected = [toy.predict_entities(text, LABELS) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: toy.predict_entities(text, LABELS), texts)) == expected


def test_an_export_of_the_reference_and_our_bundle_of_it_agree(toy, tmp_path):
    model = nerlet.load(str(write_export(tmp_path / "toy")), threads=1)
    assert model.predict_entities(TEXT, LABELS) == toy.predict_entities(TEXT, LABELS)
    assert (model.manifest, model.threshold, model.device) == (None, 0.5, "cpu")


def test_from_pretrained_and_the_default_bundle(toy, toy_path, monkeypatch):
    model = nerlet.GLiNER.from_pretrained(str(toy_path), threads=1)
    assert model.predict_entities(TEXT, LABELS) == toy.predict_entities(TEXT, LABELS)
    monkeypatch.setattr("nerlet.model.default_bundle_path", lambda: toy_path)
    assert nerlet.load(threads=1).bundle.path == toy_path


def test_the_graph_gets_the_device_the_providers_and_the_threads(toy_path, monkeypatch):
    opener = Mock(wraps=open_sessions)
    monkeypatch.setattr("nerlet.placement.open_sessions", opener)
    nerlet.load(toy_path, device="cuda", providers=["CPUExecutionProvider"], threads=2)
    given = {"providers": ["CPUExecutionProvider"], "threads": 2}
    opener.assert_called_once_with(toy_path / "model.onnx", **given)

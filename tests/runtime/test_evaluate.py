import pytest

from nerlet.decode import Span
from nerlet.evaluate import (
    Counts,
    Dataset,
    Example,
    average_f1,
    count_matches,
    evaluate,
    judge,
    mean_f1_by_threshold,
)

LABELS = ("person", "place")


def example(*entities, words=("a", "b", "c", "d"), labels=LABELS, judged=None) -> Example:
    return Example(words, frozenset(entities), labels, judged)


def dataset(*examples: Example, name="set") -> Dataset:
    labels = tuple(dict.fromkeys(label for each in examples for label in each.labels))
    return Dataset(name, labels, examples)


def answer(*sentences):
    """A predictor that gives these spans, sentence after sentence, whatever it is asked."""
    remaining = iter(sentences)
    return lambda words, _labels: [next(remaining) for _ in words]


def test_counts_by_hand():
    data = dataset(
        example((0, 1, "person"), (2, 4, "place")),
        example((0, 2, "person")),
        example(),
    )
    predict = answer(
        [Span(0, 1, 0, 0.9), Span(2, 3, 1, 0.8)],  # right; wrong end
        [Span(0, 2, 1, 0.7)],  # wrong type
        [Span(3, 4, 0, 0.6)],  # nothing there
    )
    scores = evaluate(predict, data)
    assert scores.total == Counts(correct=1, found=4, annotated=3)
    assert scores.by_label == {"person": Counts(1, 2, 2), "place": Counts(0, 2, 1)}
    assert scores.sentences == 3
    assert scores.total.precision == 1 / 4
    assert scores.total.recall == 1 / 3
    assert scores.total.f1 == pytest.approx(2 / 7)


def test_ratios_of_nothing_are_zero():
    assert (Counts().precision, Counts().recall, Counts().f1) == (0, 0, 0)


def test_span_found_twice_counts_once_with_its_best_score():
    data = dataset(example((0, 1, "person")))
    spans = [Span(0, 1, 0, 0.4), Span(0, 1, 0, 0.6)]
    judgement = judge(answer(spans), data)
    assert judgement.scores().total == Counts(1, 1, 1)
    assert judgement.scores(0.5).total == Counts(1, 1, 1)


def test_files_are_averaged_plainly_and_sentences_pooled():
    small = evaluate(answer([Span(0, 1, 0, 0.9)]), dataset(example((0, 1, "person"))))
    big = evaluate(answer(*[[]] * 9), dataset(*[example((0, 1, "person"))] * 9))
    assert (small.total.f1, big.total.f1) == (1, 0)
    assert average_f1([small, big]) == 0.5
    assert average_f1([]) == 0


def test_every_threshold_from_one_pass():
    data = dataset(example((0, 1, "person"), (1, 2, "place")))
    judgement = judge(answer([Span(0, 1, 0, 0.75), Span(1, 2, 1, 0.5), Span(2, 3, 0, 0.25)]), data)
    assert judgement.scores(0.25).total == Counts(2, 2, 2)  # strictly above
    assert judgement.scores(0.2).total == Counts(2, 3, 2)
    assert judgement.scores(0.5).total == Counts(1, 1, 2)
    f1 = mean_f1_by_threshold([judgement], [0.2, 0.25, 0.5, 0.9])
    assert f1 == pytest.approx([4 / 5, 1, 2 / 3, 0])


def test_predictor_is_asked_per_run_of_equal_labels_in_order():
    asked = []

    def predict(sentences, labels):
        asked.append(([words[0] for words in sentences], labels))
        return [[Span(0, 1, 0, 0.9)] for _ in sentences]

    data = dataset(
        example((0, 1, "x"), words=("1",), labels=("x",)),
        example(words=("2",), labels=("x",)),
        example((0, 1, "y"), words=("3",), labels=("y", "x")),
        example((0, 1, "x"), words=("4",), labels=("x",)),
    )
    done: list[int] = []
    scores = judge(predict, data, on_done=done.append).scores()
    assert asked == [(["1", "2"], ("x",)), (["3"], ("y", "x")), (["4"], ("x",))]
    assert done == [2, 1, 1]
    assert scores.by_label == {"x": Counts(2, 3, 2), "y": Counts(1, 1, 1)}


def test_long_runs_are_asked_in_parts():
    sizes = []

    def predict(sentences, _):
        sizes.append(len(sentences))
        return [[] for _ in sentences]

    judge(predict, dataset(*[example()] * 150))
    assert sizes == [64, 64, 22]


def test_sentences_without_labels_are_not_asked_about():
    def predict(_sentences, labels):
        raise AssertionError(labels)

    assert evaluate(predict, dataset(example(labels=()))).sentences == 1


def test_spans_that_nobody_looked_at_are_not_judged():
    data = dataset(example((0, 1, "person"), judged=frozenset({(0, 1)})))
    predict = answer([Span(0, 1, 0, 0.9), Span(0, 1, 1, 0.8), Span(2, 3, 0, 0.7)])
    assert evaluate(predict, data).total == Counts(1, 2, 1)


def test_predictor_that_skips_a_sentence_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        judge(lambda _sentences, _labels: [[]], dataset(example(), example()))


def test_count_matches_takes_each_span_once():
    assert count_matches(["a", "b", "b"], ["b", "b", "c"]) == Counts(1, 2, 2)

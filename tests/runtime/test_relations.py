"""Relations: their arguments, their prompt, and what is made of the graph's pairs."""

from typing import Any

import numpy as np
import pytest

import nerlet
from nerlet.arguments import OwnThresholds, read_tasks
from nerlet.bundle import default_bundle_path
from nerlet.decode import Span
from nerlet.entities import Entity
from nerlet.errors import BundleError, InputError
from nerlet.manifest import Manifest, read_json
from nerlet.prompt import PieceEncoder
from nerlet.relation_arguments import RelationTask, read_relation_tasks
from nerlet.relation_graph import Related
from nerlet.relation_prompt import make_tail
from nerlet.relations import to_relations
from tests.toys import make_wordpiece

OWN = OwnThresholds(0.5, {})


def read(relations, adjacency=None, threshold=None, *, count=2, entities=0.5):
    tasks = read_tasks(count, ["a", "b"], entities, OWN, multi_label=False, flat_ner=True)
    return read_relation_tasks(tasks, relations, adjacency, threshold)


@pytest.mark.parametrize(
    ("relations", "expected"),
    [
        ("likes", [("likes",)] * 2),
        (["likes", "of", "likes"], [("likes", "of")] * 2),
        ([], [()] * 2),
        ([["likes"], []], [("likes",), ()]),
        ((("of", "of"), "likes"), [("of",), ("likes",)]),
    ],
)
def test_relations_are_of_all_texts_or_of_each(relations, expected):
    assert [task.names for task in read(relations)] == expected


def test_thresholds_follow_that_of_entities():
    assert read("of", entities=0.3) == [RelationTask(("of",), 0.3, 0.3, 0.3)] * 2
    own = read("of", [0.1, None], 0.2, entities=[{"a": 0.4, "b": 0.6}, 0.7])
    assert own == [RelationTask(("of",), 0.4, 0.1, 0.2), RelationTask(("of",), 0.7, 0.7, 0.2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "relations: expected a list of strings"),
        (({"of": "belongs to"},), "relations: expected a list of strings"),
        ((["of", " "],), "relations: expected a list of strings that are not empty"),
        (([["of"]],), "relations: expected one value for all texts or a list of 2"),
        (("of", 2), "adjacency_threshold: expected a number from 0 to 1, found 2"),
        (("of", None, "x"), "relation_threshold: expected a number from 0 to 1"),
        (("of", [0.1]), "adjacency_threshold: expected one value for all texts or a list of 2"),
    ],
)
def test_other_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        read(*arguments)


def test_the_prompt_has_each_relation_behind_its_marker():
    encoder = PieceEncoder(make_wordpiece(), 1, 2)
    (one,), (other,) = ([own] for own in encoder.encode_units(["a", "b"]))
    assert make_tail(encoder, [], 3) == (2,)
    assert make_tail(encoder, ["a", "b"], 3) == (3, *one, 3, *other, 2)


SPANS = [Span(0, 1, 0, 0.9), Span(0, 1, 1, 0.8), Span(2, 4, 1, 0.7)]
ENTITIES: list[Entity] = [
    {"start": 0, "end": 3, "text": "Ada", "label": "x", "score": 0.9},
    {"start": 0, "end": 3, "text": "Ada", "label": "y", "score": 0.8},
    {"start": 8, "end": 12, "text": "Paul", "label": "y", "score": 0.7},
]


def make_related(*pairs):
    heads, tails, logits = zip(*pairs, strict=True)
    return Related(np.array(heads), np.array(tails), np.array(logits, dtype=np.float32))


def test_pairs_become_relations_between_the_first_entities_of_their_spans():
    related = make_related(
        ((0, 0), (2, 3), (2.0, -2.0)),
        ((0, 0), (1, 1), (9.0, 9.0)),  # its tail was not kept
        ((2, 3), (0, 0), (3.0, 1.0)),
    )
    found = to_relations(related, SPANS, ENTITIES, ["likes", "of"], threshold=0.5)
    ends = [(own["head"]["entity_idx"], own["tail"]["entity_idx"]) for own in found]
    assert ends == [(0, 2), (2, 0), (2, 0)]
    assert [own["relation"] for own in found] == ["likes", "likes", "of"]
    assert found[0]["head"] == {"start": 0, "end": 3, "text": "Ada", "type": "x", "entity_idx": 0}
    assert found[0]["score"] == pytest.approx(0.8807971)
    assert list(found[0]) == ["head", "tail", "relation", "score"]


def test_relations_score_above_their_threshold_strictly():
    related = make_related(((0, 0), (2, 3), (0.0,)))
    assert to_relations(related, SPANS, ENTITIES, ["of"], threshold=0.5) == []
    assert len(to_relations(related, SPANS, ENTITIES, ["of"], threshold=0.4999)) == 1


def test_a_model_without_relations_says_which_have_them():
    model = nerlet.load(threads=1)
    for ask in (
        lambda: model.predict_relations("a", ["b"], ["c"]),
        lambda: model.inference(["a"], ["b"], relations=["c"]),
        lambda: model.predict_entities("a", ["b"], relations=["c"]),
    ):
        with pytest.raises(InputError, match=r"is a span model, .* has a relations_layer, such as"):
            ask()


def test_the_marker_of_relations_belongs_to_joint_models_alone():
    values: dict[str, Any] = read_json(default_bundle_path() / "nerlet.json")
    rel = {**values["special_tokens"], "rel": {"text": "<<REL>>", "id": 5}}
    for change in ({"architecture": "relex"}, {"special_tokens": rel}):
        with pytest.raises(BundleError, match="special_tokens: expected rel for the architecture"):
            Manifest.from_dict({**values, **change})
    assert Manifest.from_dict({**values, "architecture": "relex", "special_tokens": rel})

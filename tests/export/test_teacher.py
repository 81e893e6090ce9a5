"""A teacher's scores become targets; nothing is learnt from a model that reads other pieces."""

import json
from dataclasses import replace

import pytest
import torch

from nerlet.errors import InputError
from nerlet_export import train as training
from nerlet_export.checkpoint import load_checkpoint, save_checkpoint
from nerlet_export.data import Example, make_batch
from nerlet_export.predict import prompt_layout
from nerlet_export.sampling import Sampling
from nerlet_export.settings import Data, Optimization, Settings, Teaching, read_settings
from nerlet_export.teacher import Teacher
from nerlet_export.tiny import make_checkpoint

WORDS = ["ann", "met", "bob", "in", "rome"]
LABELS = ["person", "city", "day"]
STUDENT = make_checkpoint("bert", seed=1, words=WORDS, label_attention="isolated")
# Another encoder and another order of the same pieces
TEACHER = make_checkpoint("mpnet", seed=2, words=WORDS[::-1])


def read(checkpoint, words, labels, positives=(), unsure=()):
    encode = checkpoint.pieces.encode_units
    return Example(encode(words), [0] * len(words), labels, positives, None, unsure)


def batch_of(checkpoint, examples):
    pieces = dict(zip(LABELS, checkpoint.pieces.encode_units(LABELS), strict=True))
    return make_batch(examples, pieces, prompt_layout(checkpoint))


@pytest.fixture(scope="module")
def examples():
    return [
        read(STUDENT, WORDS, ["city", "person"], [(0, 0, 1), (4, 0, 0)], [(2, 0, 1)]),
        read(STUDENT, ["in", "rome"], ["day"]),
    ]


def soften(examples, share):
    teacher = Teacher(TEACHER, STUDENT, LABELS, share=share, precision="fp32")
    batch = batch_of(STUDENT, examples)
    return batch, teacher.soften(batch, examples)


def scores_of_teacher():
    """What the teacher finds where it is asked itself."""
    own = [read(TEACHER, WORDS, ["city", "person"]), read(TEACHER, ["in", "rome"], ["day"])]
    with torch.no_grad():
        return TEACHER.span_model.score_batch(batch_of(TEACHER, own)).sigmoid()


def test_targets_are_drawn_towards_the_teachers_scores(examples):
    batch, soft = soften(examples, 0.25)
    known = batch.weights > 0
    expected = 0.75 * batch.targets + 0.25 * scores_of_teacher()
    torch.testing.assert_close(soft.targets[known], expected[known])
    assert torch.equal(soft.weights[known], batch.weights[known])


def test_where_rows_say_nothing_the_teacher_does(examples):
    batch, soft = soften(examples, 0.25)
    cell = (0, 2 * 4 + 0, 1)  # "bob" as a person, (start, width, label)
    assert batch.weights[cell] == 0
    assert soft.weights[cell] == 0.25
    torch.testing.assert_close(soft.targets[cell], scores_of_teacher()[cell])


def test_nothing_is_learnt_outside_texts_and_prompts(examples):
    batch, soft = soften(examples, 0.5)
    outside = ~(batch.is_span[:, :, None] & batch.is_label[:, None, :])
    assert outside.any()
    assert not soft.weights[outside].any()


def test_a_teacher_of_other_pieces_is_refused():
    other = make_checkpoint("mpnet", words=["rome"])
    with pytest.raises(InputError, match="the student's word pieces, but of these it has others"):
        Teacher(other, STUDENT, LABELS, share=0.5, precision="fp32")
    knows_more = make_checkpoint("mpnet", words=[*WORDS, "person"])
    with pytest.raises(InputError, match="'person'"):
        Teacher(knows_more, STUDENT, LABELS, share=0.5, precision="fp32")


def test_a_teacher_of_other_spans_is_refused():
    wide = make_checkpoint("mpnet", words=WORDS, max_width=5)
    with pytest.raises(InputError, match="max_width is 5, expected the student's, 4"):
        Teacher(wide, STUDENT, LABELS, share=0.5, precision="fp32")


def test_a_student_comes_to_score_as_its_teacher(tmp_path, examples):
    torch.set_num_threads(1)
    save_checkpoint(tmp_path / "start", STUDENT)
    save_checkpoint(tmp_path / "teacher", TEACHER)
    row = {"tokenized_text": WORDS, "ner": [[0, 0, "person"], [4, 4, "city"]], "source": "toy"}
    rows = [{**row, "negatives": "closed", "license": "permissive"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = Settings(
        directory=tmp_path / "run",
        start=str(tmp_path / "start"),
        data=Data(train=str(tmp_path / "rows.jsonl")),
        optimization=Optimization(steps=300, batch_pieces=20, encoder_lr=3e-3, head_lr=1e-2),
        sampling=Sampling(drop_type=0.0, no_shapes=0.0),
        teacher=Teaching(str(tmp_path / "teacher"), share=1.0),
        device="cpu",
    )
    training.train(settings)
    trained = load_checkpoint(settings.directory / "last")

    def distance(checkpoint):
        with torch.no_grad():
            own = checkpoint.model.score_batch(batch_of(checkpoint, examples[:1])).sigmoid()
        cells = batch_of(STUDENT, examples[:1]).is_span[0]
        return (own[0, cells] - scores_of_teacher()[0, : len(cells)][cells]).abs().mean()

    assert distance(trained) < 0.5 * distance(STUDENT)
    card = json.loads((settings.directory / "last" / "training.json").read_text())
    assert card["teacher"] == {"checkpoint": f"{tmp_path.name}/teacher", "share": 1.0}


def test_settings_name_a_teacher(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('[run]\nstart = "s"\n[data]\ntrain = "t"\n[teacher]\ncheckpoint = "c"\n')
    assert read_settings(path).teacher == Teaching("c", 0.5)
    with pytest.raises(InputError, match="focal"):
        replace(read_settings(path), optimization=Optimization(focal=2.0))

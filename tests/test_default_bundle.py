"""The default bundle: whole, small, and what it finds today."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nerlet
from nerlet.bundle import default_bundle_path
from tests.golden import sentences

ROOT = Path(__file__).parent.parent
# Entities this close to the threshold may come and go with the kernels of another CPU.
MARGIN = 0.05


@pytest.fixture(scope="module")
def model():
    return nerlet.load(threads=1)


def test_the_papers_sentence(model):
    text = "Bill Gates founded Microsoft on April 4, 1975."
    found = model.predict_entities(text, ["person", "organization", "date"])
    assert [(entity["text"], entity["label"]) for entity in found] == [
        ("Bill Gates", "person"),
        ("Microsoft", "organization"),
        ("April 4, 1975", "date"),
    ]


def test_the_golden_file_is_of_this_bundle(model):
    golden = json.loads(sentences.PATH.read_text(encoding="utf-8"))
    assert golden["weights_sha256"] == model.manifest.weights_sha256
    asked = {item["text"]: item["labels"] for item in golden["sentences"]}
    assert asked == sentences.SENTENCES
    assert len(asked) == 20


def test_sentences_give_what_they_gave(model):
    golden = json.loads(sentences.PATH.read_text(encoding="utf-8"))["sentences"]
    for before, now in zip(golden, sentences.find_entities(), strict=True):
        scores = {key(entity): entity["score"] for entity in before["entities"]}
        found = {key(entity): entity["score"] for entity in now["entities"]}
        for span in scores.keys() | found.keys():
            if max(scores.get(span, 0.0), found.get(span, 0.0)) > model.threshold + MARGIN:
                assert scores.get(span) == pytest.approx(found.get(span), abs=MARGIN), span
        for entity in now["entities"]:
            assert before["text"][entity["start"] : entity["end"]] == entity["text"]


def key(entity):
    return entity["start"], entity["end"], entity["label"]


def test_it_fits_in_25_mb():
    assert sum(f.stat().st_size for f in default_bundle_path().iterdir()) <= 25_000_000


def test_neither_the_order_of_labels_nor_other_texts_change_a_score(model):
    """Isolated labels do not see each other, and int8 activations have one scale a row."""
    texts = list(sentences.SENTENCES)
    labels = ["person", "city", "organization", "date", "product"]
    alone = [model.predict_entities(text, labels, threshold=0.3) for text in texts]
    assert sum(len(entities) for entities in alone) > len(texts)
    together = model.batch_predict_entities(texts, labels, threshold=0.3)
    assert together == alone
    turned = model.batch_predict_entities(texts[::-1], labels[::-1], threshold=0.3)
    assert turned[::-1] == alone


def test_the_readme_shows_real_output():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    program = next(body for language, body in blocks if language == "python")
    shown = next(body for language, body in blocks if not language)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == shown

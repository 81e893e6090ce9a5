import threading

import numpy as np
import onnx
import pytest
from tokenizers import AddedToken, Tokenizer

from nerlet.errors import BundleError, GraphError, InputError
from nerlet.label_encoder import LabelEncoder, LabelTokenizer, pad_pieces
from nerlet.manifest import NO_MARKER
from nerlet.prompt import PieceEncoder
from nerlet.sessions import Sessions, open_sessions
from nerlet.tokenizer import cut_tokens, open_tokenizer
from tests.toys import ENT, SEP, TOKENIZERS, make_wordpiece

WIDTH = 2
# A label's embedding: the sum of its pieces, and how many there are.
_GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
toy (int64[C, P] labels_input_ids, int64[C, P] labels_attention_mask)
=> (float[C, 2] labels_embeddings)
{
    last = Constant <value_ints = [1]> ()
    ids = Mul (labels_input_ids, labels_attention_mask)
    sums = ReduceSum (ids, last)
    counts = ReduceSum (labels_attention_mask, last)
    both = Concat <axis = 1> (sums, counts)
    labels_embeddings = Cast <to = 1> (both)
}
"""


@pytest.fixture
def sessions(tmp_path):
    path = tmp_path / "labels_encoder.onnx"
    onnx.save(onnx.parser.parse_model(_GRAPH), path)
    return open_sessions(path, threads=1)


@pytest.fixture
def read(monkeypatch):
    """The pieces of each label that is read, in order."""
    found: list[list[int]] = []
    run = Sessions.run

    def count(self, outputs, feeds, **options):
        found.append(feeds["labels_input_ids"].tolist())
        return run(self, outputs, feeds, **options)

    monkeypatch.setattr(Sessions, "run", count)
    return found


def test_labels_are_read_alone_once_and_come_in_the_order_asked_for(sessions, read):
    encoder = LabelEncoder(sessions, WIDTH, threads=2)
    found = encoder.embed(((1, 2), (7,), (1, 2), (4, 5, 6)))
    np.testing.assert_array_equal(found, [[3, 2], [7, 1], [3, 2], [15, 3]])
    np.testing.assert_array_equal(encoder.embed(((7,), (1, 2))), [[7, 1], [3, 2]])
    assert sorted(read) == [[[1, 2]], [[4, 5, 6]], [[7]]]
    assert encoder.embed(()).shape == (0, WIDTH)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_the_least_recently_used_go_first(sessions, read):
    encoder = LabelEncoder(sessions, WIDTH, threads=1, kept_bytes=2 * 4 * WIDTH)
    for labels in (((1,), (2,)), ((1,),), ((3,),), ((1,),), ((2,),)):
        encoder.embed(labels)
    assert read == [[[1]], [[2]], [[3]], [[2]]]
    found = encoder.embed(tuple((own,) for own in range(10, 20)))  # more than are kept
    np.testing.assert_array_equal(found[:, 0], range(10, 20))
    assert len(encoder._kept) == 2


def test_given_embeddings_never_go(sessions, read):
    encoder = LabelEncoder(sessions, WIDTH, threads=1, kept_bytes=1)
    encoder.keep(((1,), (2,)), np.array([[5, 6], [7, 8]], dtype=np.float32))
    for own in range(3, 6):
        encoder.embed(((own,),))
    np.testing.assert_array_equal(encoder.embed(((2,), (1,))), [[7, 8], [5, 6]])
    assert len(read) == 3


def test_many_threads_may_ask_at_once(sessions):
    encoder = LabelEncoder(sessions, WIDTH, threads=2, kept_bytes=4 * 4 * WIDTH)
    wrong = []

    def ask(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            labels = tuple((int(own), 1) for own in rng.integers(9, size=5))
            found = encoder.embed(labels)
            if found[:, 0].tolist() != [own + 1 for own, _ in labels]:
                wrong.append(labels)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for own in threads:
        own.start()
    for own in threads:
        own.join()
    assert not wrong


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("labels_input_ids", "input_ids", "expected the inputs labels_attention_mask, labels_in"),
        ("float[C, 2]", "float[C, 3]", r"expected embeddings of width 2, .* found .*3\]"),
    ],
)
def test_another_graph_is_refused(tmp_path, old, new, message):
    path = tmp_path / "labels_encoder.onnx"
    text = _GRAPH.replace(old, new)
    if "3" in new:
        text = text.replace("(sums, counts)", "(sums, counts, counts)")
    onnx.save(onnx.parser.parse_model(text), path)
    with pytest.raises(GraphError, match=message):
        LabelEncoder(open_sessions(path, threads=1), WIDTH, threads=1)


def test_shorter_labels_are_padded():
    feeds = pad_pieces([(1, 2, 3), (4,)])
    assert feeds["labels_input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert feeds["labels_attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_label_is_what_the_tokenizer_makes_of_its_text(name):
    tokenizer: Tokenizer = TOKENIZERS[name]()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    (found,) = LabelTokenizer(tokenizer, 40).encode(["a human being on April 4"])
    tokenizer.no_truncation()
    assert list(found) == tokenizer.encode("a human being on April 4").ids
    assert LabelTokenizer(tokenizer, None).encode(["\ud800 a"])[0]


def test_labels_that_are_empty_or_too_long_for_the_encoder_are_refused():
    encoder = LabelTokenizer(make_wordpiece(), 5)
    encoder.encode(["a a a"])
    with pytest.raises(InputError, match=r"at most 5 pieces, .* one of 6, 'a a a a'"):
        encoder.encode(["a", "a a a a"])
    with pytest.raises(InputError, match="reads nothing"):
        encoder.encode(["\x01"])


def test_tokens_without_a_row_are_taken_away():
    tokenizer = make_wordpiece()
    size = tokenizer.token_to_id(ENT)
    tokenizer.add_special_tokens([AddedToken("[LATE]", special=True)])
    cut = cut_tokens(tokenizer, size)
    text = f"a {ENT} Bill {SEP} [LATE]"
    assert max(tokenizer.encode(text).ids) > size
    assert max(cut.encode(text).ids) < size
    assert cut.encode("Bill Gates").ids == tokenizer.encode("Bill Gates").ids


def test_a_text_without_markers_stands_alone():
    encoder = PieceEncoder(make_wordpiece(), NO_MARKER.id, NO_MARKER.id)
    assert encoder.make_head(()) == list(encoder.prefix_ids)


def test_a_tokenizer_that_is_none_is_an_error(tmp_path):
    with pytest.raises(BundleError, match="expected this file, found none"):
        open_tokenizer(tmp_path / "tokenizer.json")

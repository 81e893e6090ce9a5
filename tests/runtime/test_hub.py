import sys
from typing import ClassVar

import pytest

from nerlet.errors import BundleError, InputError
from nerlet.hub import find_model


@pytest.fixture
def hub(monkeypatch):
    """A hub that records what is asked of it."""

    class FakeHub:
        answer: object = None
        asked: ClassVar[list[object]] = []

        @classmethod
        def snapshot_download(cls, name, **options):
            cls.asked.append((name, options))
            if isinstance(cls.answer, Exception):
                raise cls.answer
            return cls.answer

    monkeypatch.setitem(sys.modules, "huggingface_hub", FakeHub)
    return FakeHub


def test_a_local_directory_never_asks_the_hub(hub, tmp_path):
    assert find_model(str(tmp_path)) == tmp_path
    assert hub.asked == []


def test_a_name_is_fetched_with_its_options(hub, tmp_path):
    hub.answer = str(tmp_path)
    assert find_model("owner/name", revision="main", local_files_only=True) == tmp_path
    ((name, options),) = hub.asked
    assert name == "owner/name"
    assert options["revision"] == "main"
    assert options["local_files_only"] is True
    assert {"nerlet.json", "tokenizer.json", "onnx/model.onnx"} < set(options["allow_patterns"])
    parts = {"label.onnx", "text.onnx", "weights.bin", "model_fp16.onnx"}
    assert parts < set(options["allow_patterns"])
    assert not any("safetensors" in pattern for pattern in options["allow_patterns"])


@pytest.mark.parametrize("error", [OSError("no network"), ValueError("bad name")])
def test_a_name_that_cannot_be_fetched_says_why(hub, error):
    hub.answer = error
    with pytest.raises(BundleError, match=f"^owner/name: .* the hub gave {type(error).__name__}"):
        find_model("owner/name")


def test_a_missing_hub_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match="`pip install huggingface_hub`, or give a directory"):
        find_model("owner/name")


def test_an_unknown_option_is_refused(hub, tmp_path):
    with pytest.raises(InputError, match=r"^load_onnx_model: expected no such argument"):
        find_model(tmp_path, load_onnx_model=True)
    assert hub.asked == []

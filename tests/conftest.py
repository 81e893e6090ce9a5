"""Fixtures for all tests; hypothesis draws the same examples in every run."""

from pathlib import Path

import pytest
from hypothesis import settings

import nerlet
from tests.toys import write_bundle

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def toy_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy bundle; tests do not change it."""
    return write_bundle(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="session")
def toy(toy_path: Path) -> nerlet.GLiNER:
    """The toy model."""
    return nerlet.load(toy_path, threads=1)


@pytest.fixture(scope="session")
def shaped_toy(tmp_path_factory: pytest.TempPathFactory) -> nerlet.GLiNER:
    """The toy model whose graph takes word shapes."""
    path = write_bundle(tmp_path_factory.mktemp("models") / "shaped", word_shapes=True)
    return nerlet.load(path, threads=1)

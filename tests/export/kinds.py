"""The kinds of models that `gliner` makes and nerlet converts: one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.export.bi_models import make_bi_reference
from tests.export.matrix import SPAN_MODES
from tests.export.parity import WHOLE
from tests.export.reference_models import make_reference, make_token_reference
from tests.export.relation_models import make_relation_reference


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of model.

    Attributes:
        name: As docs/models.md calls it.
        make: Makes the reference's model over an encoder, into a folder.
        is_main: Compared over three encoders in every run of the tests; others in slow runs.
        sees_padding: In a batch of the reference's it reads padding, so that texts go alone.
        has_relations: Between entities, too.
    """

    name: str
    make: Callable[[Path, str], Any]
    is_main: bool = False
    sees_padding: bool = False
    has_relations: bool = False


def _make_span(folder: Path, encoder: str, *, mode: str) -> Any:
    return make_reference(folder, encoder=encoder, span_mode=mode, words=WHOLE)


def _make_token(folder: Path, encoder: str) -> Any:
    return make_token_reference(folder, encoder=encoder, words=WHOLE)


def _make_bi(folder: Path, encoder: str, *, mode: str) -> Any:
    return make_bi_reference(
        folder, encoder=encoder, labels_encoder="mpnet", span_mode=mode, words=WHOLE
    )


_OTHER_SEED = ("roberta", "xlm-roberta", "camembert", "albert")


def _make_joint(folder: Path, encoder: str, *, mode: str) -> Any:
    seed = 101 if encoder in _OTHER_SEED and mode == "markerV0" else 100  # so that it relates much
    return make_relation_reference(folder, encoder=encoder, span_mode=mode, seed=seed, words=WHOLE)


KINDS = (
    *(
        Kind(
            f"span, {mode}",
            partial(_make_span, mode=mode),
            is_main=mode == "markerV0",
            sees_padding=mode in ("markerV1", "markerV2"),
        )
        for mode in SPAN_MODES
    ),
    Kind("token", _make_token, is_main=True),
    Kind("bi-encoder, span", partial(_make_bi, mode="markerV0"), is_main=True),
    Kind("bi-encoder, token", partial(_make_bi, mode="token_level"), is_main=True),
    *(
        Kind(
            f"relations, {name}",
            partial(_make_joint, mode=mode),
            is_main=True,
            sees_padding=True,
            has_relations=True,
        )
        for name, mode in (("span", "markerV0"), ("token", "token_level"))
    ),
)

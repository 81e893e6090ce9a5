"""The part of a joint model's prompt that asks for relations, between the labels and the words.

Layout: prefix [ENT] label ... [SEP] [REL] relation [REL] relation ... [SEP] words suffix; without
relations two [SEP] stand side by side.
"""

from collections.abc import Sequence

from nerlet.errors import InputError
from nerlet.prompt import PieceEncoder


def make_tail(encoder: PieceEncoder, relations: Sequence[str], rel_id: int) -> tuple[int, ...]:
    """Return the ids between the labels' `[SEP]` and the first word.

    Args:
        encoder: Of the model.
        relations: What the model reads of each.
        rel_id: Id of the marker before a relation.

    Raises:
        InputError: A relation yields no pieces, so that the model cannot read it.
    """
    tail: list[int] = []
    for relation, pieces in zip(relations, encoder.encode_units(relations), strict=True):
        if not pieces:
            raise InputError(
                f"relations: expected relations with visible characters, found {relation!r}, of "
                "which the model's tokenizer reads nothing; reword it"
            )
        tail += [rel_id, *pieces]
    return (*tail, encoder.sep_id)

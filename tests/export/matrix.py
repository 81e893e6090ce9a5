"""Span modes over encoders: what of the reference's is converted and compared, cell by cell.

`STATUS` is the one record of it; test_span_modes.py holds every cell of it to what it says.
"""

from nerlet_export.config import SPAN_MODES as ALL_MODES
from nerlet_export.config import TOKEN_LEVEL

VERIFIED = "verified"  # converted; logits and entities are the reference's
REFUSED = "refused"  # an error that says why

SPAN_MODES = tuple(
    mode for mode in ALL_MODES if mode not in ("paper", TOKEN_LEVEL)
)  # the reference's
_UNDER_ALL_MODES = ("bert", "deberta-v2", "modernbert")
_UNDER_THE_DEFAULT = (
    *("roberta", "xlm-roberta", "camembert", "albert", "electra", "mpnet"),
    *("mdeberta", "t5", "mt5"),
)

Cell = tuple[str, str]  # span mode, encoder: a key of `reference_models.BACKBONES`
STATUS: dict[Cell, str] = {
    **{(mode, encoder): VERIFIED for mode in SPAN_MODES for encoder in _UNDER_ALL_MODES},
    **{("markerV0", encoder): VERIFIED for encoder in _UNDER_THE_DEFAULT},
    ("markerV0", "xlnet"): REFUSED,
}
CELLS = [cell for cell, status in STATUS.items() if status == VERIFIED]

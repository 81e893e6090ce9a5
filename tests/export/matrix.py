"""Span modes and bi-encoders over encoders: what every run of the tests compares, cell by cell.

test_span_modes.py holds each cell of `STATUS` to what it says, test_bi_encoder.py each of
`BI_STATUS`. All kinds over all encoders are test_every_kind.py's.
"""

from nerlet_export.config import SPAN_MODES as ALL_MODES
from nerlet_export.config import TOKEN_LEVEL

VERIFIED = "verified"  # converted; logits and entities are the reference's
REFUSED = "refused"  # an error that says why

SPAN_MODES = tuple(
    mode for mode in ALL_MODES if mode not in ("paper", TOKEN_LEVEL)
)  # the reference's
ENCODERS = (
    *("bert", "roberta", "xlm-roberta", "camembert", "albert", "electra", "mpnet"),
    *("deberta-v2", "mdeberta", "modernbert", "t5", "mt5", "xlnet"),
)
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

# Bi-encoders: what scores, over the encoder of texts.
# "fused": with post_fusion_schema. The encoder of labels is another family's in every cell.
BI_ENCODERS = ("bert", "deberta-v2", "roberta", "modernbert")
BI_STATUS: dict[Cell, str] = {
    **{(mode, own): VERIFIED for mode in ("markerV0", "token_level") for own in BI_ENCODERS},
    **{(mode, "bert"): VERIFIED for mode in ("markerV1", "conv_max", "query")},
    ("markerV0 fused", "roberta"): VERIFIED,
    ("token_level fused", "deberta-v2"): VERIFIED,
    ("token_level represent_spans", "bert"): REFUSED,
    ("markerV0", "xlnet"): REFUSED,
}
BI_CELLS = [cell for cell, status in BI_STATUS.items() if status == VERIFIED]

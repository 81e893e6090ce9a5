"""Joint models over encoders and layers: what of the reference's is converted and compared.

`RELEX_STATUS` and `LAYER_STATUS` are the one record of it; test_relex.py holds every cell of them
to what it says.
"""

from dataclasses import dataclass

from nerlet_export.config import RELATIONS_LAYERS, TOKEN_LEVEL, TRIPLES_LAYERS
from tests.export.matrix import REFUSED, VERIFIED

KINDS = {"span": "markerV0", "token": TOKEN_LEVEL}
_BACKBONES = ("bert", "deberta-v2", "roberta")
_MORE_SPAN_MODES = ("marker", "markerV2", "cat", "conv_max")

# Kind, backbone
RELEX_STATUS: dict[tuple[str, str], str] = {
    (kind, backbone): VERIFIED for kind in KINDS for backbone in _BACKBONES
}
# Key of the config and its value, over BERT
LAYER_STATUS: dict[tuple[str, str], str] = {
    # "attn" is "attention"
    **{("relations_layer", layer): VERIFIED for layer in RELATIONS_LAYERS if layer != "attn"},
    **{("triples_layer", layer): VERIFIED for layer in TRIPLES_LAYERS if layer},
    **{("span_mode", mode): VERIFIED for mode in _MORE_SPAN_MODES},
    ("triples_layer", "TuckER"): REFUSED,
    ("triples_layer", "ConvE"): REFUSED,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What one model is made of."""

    span_mode: str
    encoder: str = "bert"
    relations_layer: str = "mlp"
    triples_layer: str | None = None

    def __str__(self) -> str:
        layers = (self.relations_layer, self.triples_layer or "projection")
        return "-".join((self.span_mode, self.encoder, *layers))


def _of_layer(number: int, key: str, value: str) -> Cell:
    """Spans and tokens in turn."""
    own = {"span_mode": list(KINDS.values())[number % 2], key: value}
    return Cell(**own)


CELLS = {
    **{key: Cell(KINDS[key[0]], key[1]) for key in RELEX_STATUS},
    **{
        key: _of_layer(number, *key)
        for number, (key, status) in enumerate(LAYER_STATUS.items())
        if status == VERIFIED
    },
}

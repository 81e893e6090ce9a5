"""The kinds of models by their config: the one place that knows all of them."""

from collections.abc import Callable

from nerlet_export.bi import BiSpanModel, BiTokenModel
from nerlet_export.config import ModelConfig
from nerlet_export.model import Model, SpanModel, TokenModel
from nerlet_export.relation_model import make_relation_model

_KINDS: dict[str, Callable[[ModelConfig], Model]] = {
    "span": SpanModel,
    "token": TokenModel,
    "bi": BiSpanModel,
    "bi_token": BiTokenModel,
    "relex": make_relation_model,
}


def make_model(config: ModelConfig) -> Model:
    """Make a model of the kind that its config says."""
    return _KINDS[config.architecture](config)

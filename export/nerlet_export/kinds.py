"""The kinds of models by their config: the one place that knows all of them."""

from nerlet_export.bi import BiSpanModel, BiTokenModel
from nerlet_export.config import ModelConfig
from nerlet_export.model import Model, SpanModel, TokenModel

_KINDS: dict[str, type[Model]] = {
    "span": SpanModel,
    "token": TokenModel,
    "bi": BiSpanModel,
    "bi_token": BiTokenModel,
}


def make_model(config: ModelConfig) -> Model:
    """Make a model of the kind that its config says."""
    return _KINDS[config.architecture](config)

"""Zero-shot named entity recognition with GLiNER models, without PyTorch."""

from nerlet.entities import Entity
from nerlet.errors import BundleError, GraphError, InputError, NerletError
from nerlet.model import GLiNER, load

__all__ = [
    "BundleError",
    "Entity",
    "GLiNER",
    "GraphError",
    "InputError",
    "NerletError",
    "load",
]

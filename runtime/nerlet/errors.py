"""Errors of nerlet; every one says what was expected, what came, where, and what to do.

NerletError
├── BundleError   a model directory that is missing, damaged, or of another schema
├── GraphError    an ONNX graph whose signature or device is not the one asked for
└── InputError    a bad argument or text (also a ValueError)
"""


class NerletError(Exception):
    """Base of all errors raised on purpose by nerlet."""


class BundleError(NerletError):
    """A model directory is missing, damaged, or of another schema."""


class GraphError(NerletError):
    """An ONNX graph cannot be opened as asked, or its inputs or outputs differ from the bundle."""


class InputError(NerletError, ValueError):
    """A text, label, threshold or other argument is not usable."""

"""The PyTorch half of nerlet: train, read and write checkpoints, export verified ONNX bundles."""

try:
    import torch  # noqa: F401  (only to say early and clearly that the extra is missing)
    import transformers  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"nerlet_export needs {error.name}, which is not installed; "
        "run: pip install 'nerlet[export]'"
    ) from error

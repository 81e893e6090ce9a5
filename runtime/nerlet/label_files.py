"""What a bi-encoder's directory holds to read labels with, beside the graph that reads texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from nerlet.errors import BundleError
from nerlet.manifest import (
    CONFIG_NAME,
    LABELS_ENCODER_NAME,
    LABELS_TOKENIZER_CONFIG_NAME,
    LABELS_TOKENIZER_NAME,
    is_count,
    read_json,
)
from nerlet.positions import find_positions
from nerlet.tokenizer import open_tokenizer

_DEFAULT_WIDTH = 512  # the reference's


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """The files and settings of labels.

    Attributes:
        directory: Of the model.
        tokenizer: None: there is none, as the reference's exporter writes none.
        encoder_path: The ONNX file that reads a label; None: there is none.
        width: D, of a label's embedding.
        max_positions: Most pieces of a label, special ones included; None: no limit.
        is_fused: Labels and words attend to each other above their encoders.
        origin: Where the config has the labels' encoder from.
    """

    directory: Path
    tokenizer: Tokenizer | None
    encoder_path: Path | None
    width: int
    max_positions: int | None
    is_fused: bool
    origin: str

    @property
    def tokenizer_path(self) -> Path:
        """Where the tokenizer is, or should be."""
        return self.directory / LABELS_TOKENIZER_NAME

    @property
    def needed_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            BundleError: There is none.
        """
        if self.tokenizer is None:
            raise BundleError(
                f"{self.tokenizer_path}: expected the tokenizer of the labels, found no such file "
                f"(GLiNER's exporter does not write it); copy the checkpoint's folder "
                f"`labels_tokenizer` there, or save the fast tokenizer of {self.origin!r} there"
            )
        return self.tokenizer


def open_label_files(directory: Path, config: Mapping[str, object]) -> LabelFiles:
    """Find what reads labels.

    Args:
        directory: Of the model.
        config: Of `gliner_config.json`, without nulls.

    Raises:
        BundleError: A file is damaged, or the width is none.
    """
    width = config.get("hidden_size", _DEFAULT_WIDTH)
    if not is_count(width):
        raise BundleError(
            f"{directory / CONFIG_NAME}: hidden_size: expected a whole number of at least 1, found "
            f"{width!r}; export the model again"
        )
    path, described = directory / LABELS_TOKENIZER_NAME, directory / LABELS_TOKENIZER_CONFIG_NAME
    encoder, encoder_path = config.get("labels_encoder_config"), directory / LABELS_ENCODER_NAME
    return LabelFiles(
        directory=directory,
        tokenizer=open_tokenizer(path) if path.is_file() else None,
        encoder_path=encoder_path if encoder_path.is_file() else None,
        width=width,
        max_positions=find_positions(
            encoder if isinstance(encoder, dict) else {},
            read_json(described) if described.is_file() else {},
        ),
        is_fused=bool(config.get("post_fusion_schema")),
        origin=str(config.get("labels_encoder")),
    )

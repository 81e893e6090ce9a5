"""Average the weights of checkpoints of one run: one model, often better than each of them.

Source: Model soups (Wortsman et al., 2022), uniform averages.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from nerlet.errors import BundleError, InputError
from nerlet.evaluate import list_datasets, read_dataset
from nerlet.manifest import read_json
from nerlet_export.checkpoint import (
    CARD_NAME,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    write_card,
)
from nerlet_export.dev import measure

logger = logging.getLogger(__name__)


def average_checkpoints(
    sources: Sequence[Path | str], target: Path | str, *, dev: Path | str | None = None
) -> None:
    """Write the average of checkpoints.

    Args:
        sources: Directories of two or more checkpoints of one architecture; the last one's
            training card goes along, with the steps of all.
        target: Another directory.
        dev: Labelled files on which the average's threshold and F1 are measured, for its card.

    Raises:
        BundleError: A checkpoint cannot be read, or two differ in architecture.
        InputError: Fewer than two, or `target` is one of them.
    """
    folders, target = [Path(source) for source in sources], Path(target)
    if len(folders) < 2:
        raise InputError(f"expected two or more checkpoints to average, found {len(folders)}")
    if target.resolve() in [folder.resolve() for folder in folders]:
        raise InputError(f"{target}: expected another directory than the checkpoints' own")
    checkpoints = [load_checkpoint(folder) for folder in folders]
    last = checkpoints[-1]
    for folder, checkpoint in zip(folders, checkpoints, strict=True):
        if checkpoint.model.config != last.model.config:
            raise BundleError(
                f"{folder}: its config differs from that of {folders[-1]}; only checkpoints of one "
                "architecture can be averaged"
            )
    _average_into(last, checkpoints)
    cards = [_read_card(folder) for folder in folders]
    card = {**cards[-1], "averaged_steps": [card.get("steps") for card in cards]}
    if dev is not None:
        found = measure(last, map(read_dataset, list_datasets(dev)), precision="fp32")
        card |= {"threshold": found.threshold, "dev": found.percentages()}
        logger.info("dev F1 %.2f at threshold %g", 100 * found.f1, found.threshold)
    save_checkpoint(target, last)
    write_card(target, card)


def _average_into(last: Checkpoint, checkpoints: Sequence[Checkpoint]) -> None:
    states = [checkpoint.model.state_dict() for checkpoint in checkpoints]
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(tensor.dtype)
        for name, tensor in states[-1].items()
    }
    last.model.load_state_dict(mean)


def _read_card(folder: Path) -> dict[str, object]:
    path = folder / CARD_NAME
    return read_json(path) if path.exists() else {}

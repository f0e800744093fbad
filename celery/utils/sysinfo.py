"""The machine we run on: disks, load, processors."""

from __future__ import annotations

import os
from math import ceil, floor
from typing import Any, NamedTuple

__all__ = (
    "AUTO_CONCURRENCY",
    "CpuBudget",
    "available_cpu_count",
    "cgroup_cpu_quota",
    "cpu_budget",
    "df",
    "is_auto_concurrency",
    "load_average",
)

AUTO_CONCURRENCY = "auto"

_CGROUP_ROOT = "/sys/fs/cgroup"


def load_average() -> tuple[float, ...]:
    """Return the load of the last 1, 5 and 15 minutes."""
    return tuple(ceil(load * 100) / 100 for load in os.getloadavg())


class df:
    """The disk that ``path`` is on."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    @property
    def total_blocks(self) -> float:
        return self.stat.f_blocks * self.stat.f_frsize / 1024

    @property
    def available(self) -> int:
        """Blocks that users may still fill."""
        return self.stat.f_bavail

    @property
    def capacity(self) -> int:
        """How full it is, in percent."""
        used = self.stat.f_blocks - self.stat.f_bfree
        return ceil(used * 100.0 / (used + self.available) + 0.5)

    @property
    def stat(self) -> os.statvfs_result:
        return os.statvfs(os.path.abspath(self.path))


class CpuBudget(NamedTuple):
    """``count`` processes may run; ``available`` processors and ``quota`` (of the control group) are the reasons."""

    count: int  # type: ignore[assignment]  # hides tuple.count
    available: int
    quota: float | None


def is_auto_concurrency(value: Any) -> bool:
    """Say whether ``value`` asks for a number of processes that fits the machine."""
    return isinstance(value, str) and value.strip().lower() == AUTO_CONCURRENCY


def available_cpu_count() -> int:
    """Return the number of processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0)) or 1
    except (AttributeError, OSError):  # not on this system
        return os.cpu_count() or 1


def cgroup_cpu_quota() -> float | None:
    """Return how many processors' time the control group allows, or ``None`` for no limit."""
    quotas = [quota for quota in map(_quota_of, _cgroup_paths()) if quota is not None]
    return min(quotas, default=None)


def cpu_budget(use_cgroup_quota: bool = True) -> CpuBudget:
    """Return how many processes have processors to run on, one at least."""
    available = available_cpu_count()
    quota = cgroup_cpu_quota() if use_cgroup_quota else None
    count = available if quota is None else min(available, max(1, floor(quota)))
    return CpuBudget(max(1, count), available, quota)


def _cgroup_paths() -> list[str]:
    """Return the directories of our control group and of all above it."""
    paths = [_CGROUP_ROOT, f"{_CGROUP_ROOT}/cpu", f"{_CGROUP_ROOT}/cpu,cpuacct"]
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = f"{_CGROUP_ROOT}/{controllers}" if controllers else _CGROUP_ROOT
        while path.strip("/"):
            paths.append(root + path)
            path = path.rpartition("/")[0]
    return paths


def _quota_of(path: str) -> float | None:
    """Return the limit set at ``path``, by the rules of version 2 or 1 of control groups."""
    fields = _read(f"{path}/cpu.max").split()
    if not fields:
        fields = [_read(f"{path}/cpu.cfs_quota_us").strip(), _read(f"{path}/cpu.cfs_period_us").strip()]
    try:
        quota, period = (float(field) for field in fields)
    except ValueError:  # "max", or nothing there
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""

import io
import os
import threading
import time

import pytest

from celery.utils import debug, sysinfo
from celery.utils.sysinfo import CpuBudget, cpu_budget, df, is_auto_concurrency, load_average


def test_the_stacks_of_all_threads_are_shown():
    ready, done = threading.Event(), threading.Event()

    def waits_here():
        ready.set()
        done.wait()

    thread = threading.Thread(target=waits_here, name="Waiter")
    thread.start()
    ready.wait()
    try:
        text = debug.cry()
        out = io.StringIO()
        assert debug.cry(out=out, sepchr="*", seplen=3) is None
    finally:
        done.set()
        thread.join()
    assert "Waiter" in text
    assert "waits_here" in text
    assert "***" in out.getvalue()


def test_code_that_blocks_is_interrupted():
    with pytest.raises(RuntimeError, match="Blocking detection"), debug.blockdetection(0.02):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            pass
    with debug.blockdetection(None):
        pass


@pytest.mark.parametrize(
    ("size", "text"), [(2**20, "1MB"), (1.5 * 2**30, "1.5GB"), (512, "512b"), (2**40, "1TB"), (2048, "2KB"), (0, "0b")]
)
def test_sizes_are_told_in_their_largest_unit(size, text):
    assert debug.humanbytes(size) == text


def test_samples_are_spread_evenly():
    assert list(debug.sample(range(100), 5)) == [0, 20, 40, 60, 80]
    assert list(debug.sample([1, 2], 5)) == [1, 2]


def test_memory_is_told_where_psutil_is_there(monkeypatch):
    class Process:
        pid = os.getpid()

        def memory_info(self):
            return type("Info", (), {"rss": 2**20})

    monkeypatch.setattr(debug, "_process", Process())
    assert debug.sample_mem() == debug.mem_rss() == "1MB"
    out = io.StringIO()
    debug.memdump(file=out)
    assert out.getvalue() == "- rss (sample):\n-    > 1MB,\n- rss (end): 1MB.\n"
    monkeypatch.setattr(debug, "ps", lambda: None)
    assert debug.sample_mem() is None
    out = io.StringIO()
    debug.memdump(file=out)
    assert "psutil not installed" in out.getvalue()


def test_the_machine_is_known():
    assert len(load_average()) == 3
    disk = df("/")
    assert 0 <= disk.capacity <= 101
    assert disk.available <= disk.stat.f_blocks
    assert disk.total_blocks > 0


@pytest.mark.parametrize(
    ("value", "is_auto"), [("auto", True), (" AUTO ", True), ("4", False), (4, False), (None, False)]
)
def test_auto_is_a_word(value, is_auto):
    assert is_auto_concurrency(value) is is_auto


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_the_control_group_counts(tmp_path, monkeypatch, files, quota):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sysinfo, "_CGROUP_ROOT", str(tmp_path))
    monkeypatch.setattr(sysinfo, "available_cpu_count", lambda: 8)
    assert sysinfo.cgroup_cpu_quota() == quota
    assert cpu_budget() == CpuBudget(8 if quota is None else max(1, int(quota)), 8, quota)
    assert cpu_budget(use_cgroup_quota=False) == CpuBudget(8, 8, None)


def test_a_group_below_the_root_counts(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "cpu.max").write_text("200000 100000")
    monkeypatch.setattr(sysinfo, "_CGROUP_ROOT", str(tmp_path))
    read = sysinfo._read
    monkeypatch.setattr(
        sysinfo, "_read", lambda path: "0::/a/b\n5:memory:/x\n" if path.startswith("/proc") else read(path)
    )
    assert sysinfo.cgroup_cpu_quota() == 2


def test_processors_are_counted():
    assert 1 <= sysinfo.available_cpu_count() <= (os.cpu_count() or 1)

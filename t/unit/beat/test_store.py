"""The schedule file: what a cut, a kill or a full disk leaves of it."""

from __future__ import annotations

import errno
import os

import pytest

from celery.beat import store
from celery.beat.store import Damaged, InUse, Run, ScheduleFile

RUNS = {
    f"entry {number} of those with names \N{SNOWMAN} of any length": Run(number * 10**9, number)
    for number in range(100)
}


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "schedule")
    file = store.open(path)
    file.replace(RUNS, {"tz": None})
    file.close()
    return path


def test_what_was_written_is_read_again(path):
    file = store.open(path)
    assert file.runs == RUNS
    assert file.meta == {"tz": None}
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_run_is_written_in_place_and_takes_no_room(path):
    size = os.stat(path).st_size
    file = store.open(path)
    for name in RUNS:
        assert file.note(name, Run(7 * 10**15, 123_456))
    file._fd = None  # as when it is killed: nothing is closed or synced

    again = ScheduleFile(path)
    with open(path, "rb") as plain:
        again._read(plain.fileno())
    assert again.runs == dict.fromkeys(RUNS, Run(7 * 10**15, 123_456))
    assert os.stat(path).st_size == size


def test_no_slot_lies_across_two_pages(path):
    _, offsets = store.rendered(RUNS, {})
    assert len(offsets) == len(RUNS)
    assert all(offset // 4096 == (offset + 38) // 4096 for offset in offsets.values())


def test_an_entry_that_is_not_in_the_file_cannot_be_noted(path):
    assert not store.open(path).note("new", Run(1, 1))


def test_a_file_cut_at_any_length_is_found_damaged(path):
    with open(path, "rb") as file:
        data = file.read()
    assert store.parsed(data)[1] == RUNS
    for length in range(1, len(data)):
        with pytest.raises(Damaged):
            store.parsed(data[:length])


def test_a_changed_byte_in_a_slot_is_found(path):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    for position in range(512, 512 + 39):
        changed = data.copy()
        changed[position] ^= 1
        with pytest.raises(Damaged):
            store.parsed(bytes(changed))


def test_a_damaged_file_is_set_aside(path):
    os.truncate(path, 700)
    with pytest.raises(Damaged, match="700 of"):
        store.open(path)
    assert ScheduleFile(path).set_aside() == f"{path}.damaged"
    assert store.open(path).runs == {}


def test_one_process_holds_it(path):
    file = store.open(path)
    with pytest.raises(InUse):
        store.open(path)
    file.replace({}, {})  # a new file in its place is locked, too
    with pytest.raises(InUse):
        store.open(path)
    file.close()
    store.open(path).close()


def test_a_new_file_that_cannot_be_written_leaves_the_old_one(path, monkeypatch):
    file = store.open(path)

    def full(fd, data):
        os.write(fd, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_write_all", full)
    with pytest.raises(OSError, match="No space"):
        file.replace({"new": Run(1, 1)}, {})
    assert file.note(next(iter(RUNS)), Run(5, 5))
    file.close()
    assert os.listdir(os.path.dirname(path)) == ["schedule"]
    assert store.open(path).runs == {**RUNS, next(iter(RUNS)): Run(5, 5)}

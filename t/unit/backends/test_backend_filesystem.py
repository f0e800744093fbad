"""Results as files."""

from __future__ import annotations

import os
import stat

import pytest

from celery import Celery
from celery.exceptions import ImproperlyConfigured


@pytest.fixture
def make():
    made = []

    def make(url, **conf):
        app = Celery("files", broker="memory://", backend=url, set_as_current=False)
        app.conf.update(conf)
        made.append(app)
        return app.backend

    yield make
    for app in made:
        app.close()


def test_a_record_is_a_file_named_like_the_keys_of_other_stores(make, tmp_path):
    make(f"file://{tmp_path}").store_result("t", 1, "SUCCESS")

    assert [path.name for path in tmp_path.iterdir()] == ["celery-task-meta-t"]
    assert b'"SUCCESS"' in (tmp_path / "celery-task-meta-t").read_bytes()


def test_only_the_owner_can_read_it(make, tmp_path):
    make(f"file://{tmp_path}").store_result("t", 1, "SUCCESS")

    assert stat.S_IMODE((tmp_path / "celery-task-meta-t").stat().st_mode) == 0o600


@pytest.mark.parametrize("task_id", ["../x", "a/b", "/etc/passwd", "..", "x\x00y"])
def test_an_id_cannot_lead_out_of_the_directory(make, tmp_path, task_id):
    inner = tmp_path / "inner"
    inner.mkdir()
    backend = make(f"file://{inner}")
    if task_id == "..":
        backend.store_result(task_id, 1, "SUCCESS")
    else:
        with pytest.raises(ValueError, match="path"):
            backend.store_result(task_id, 1, "SUCCESS")
        with pytest.raises(ValueError, match="path"):
            backend.get_task_meta(task_id)

    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


def test_an_interrupted_write_leaves_the_old_record(make, tmp_path):
    backend = make(f"file://{tmp_path}")
    backend.store_result("t", "old", "STARTED")

    class Broken:
        def __init__(self, descriptor, mode):
            self.descriptor = descriptor

        def __enter__(self):
            return self

        def write(self, data):
            raise OSError("disk full")

        def __exit__(self, *exc):
            os.close(self.descriptor)

    backend.open = Broken
    with pytest.raises(OSError, match="disk full"):
        backend.set(backend.get_key_for_task("t"), "new")
    backend.open = open

    assert backend.get_task_meta("t")["result"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["celery-task-meta-t"]


@pytest.mark.parametrize("form", ["file://{}", "file://localhost{}", "file:///{}"])
def test_urls_of_all_forms_name_the_directory(make, tmp_path, form):
    path = str(tmp_path)
    backend = make(form.format(path.lstrip("/") if form.endswith("///{}") else path))

    assert os.path.samefile(backend.path, path.encode())


def test_a_missing_directory_is_named_at_the_start(make, tmp_path):
    with pytest.raises(ImproperlyConfigured, match="nothing-here"):
        make(f"file://{tmp_path}/nothing-here")


@pytest.mark.parametrize("url", ["file://", "file://relative/path"])
def test_a_url_needs_a_directory(make, url):
    with pytest.raises(ImproperlyConfigured, match="file:///"):
        make(url)


def test_cleanup_takes_the_old_and_nothing_else(make, tmp_path):
    backend = make(f"file://{tmp_path}", result_expires=100)
    backend.store_result("old", 1, "SUCCESS")
    backend.store_result("new", 1, "SUCCESS")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".celery-new-abandoned").write_text("half")
    for name in ("celery-task-meta-old", "notes.txt", ".celery-new-abandoned"):
        os.utime(tmp_path / name, (1, 1))
    backend.cleanup()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["celery-task-meta-new", "notes.txt"]


def test_without_expiry_nothing_is_cleaned(make, tmp_path):
    backend = make(f"file://{tmp_path}", result_expires=0)
    backend.store_result("old", 1, "SUCCESS")
    os.utime(tmp_path / "celery-task-meta-old", (1, 1))
    backend.cleanup()

    assert len(list(tmp_path.iterdir())) == 1

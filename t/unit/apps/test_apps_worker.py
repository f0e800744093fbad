"""The banner of a worker."""

from __future__ import annotations

import os
import sys

import pytest

from celery import Celery
from celery.apps import worker as program


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setenv("C_FORCE_ROOT", "1")
    app = Celery("shown", broker="memory://u:c4n4ry@localhost//", set_as_current=False)
    monkeypatch.setattr(program.Worker, "setup_logging", lambda self, colorize=None: True)
    made = app.Worker(pool="solo", hostname="w1@here", loglevel="INFO", concurrency=1)
    yield made
    made.pool.stop()
    made.hub.close()


def shown(worker, monkeypatch, capsys, columns, is_terminal):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
    monkeypatch.setattr(sys, "__stdout__", sys.stdout)
    worker._isatty = is_terminal
    worker.emit_banner()
    return capsys.readouterr().out


def test_a_wide_terminal_has_room_for_the_drawing(worker, monkeypatch, capsys):
    text = shown(worker, monkeypatch, capsys, 200, is_terminal=True)

    assert program.ARTWORK[0].rstrip() in text
    assert "c4n4ry" not in text


def test_a_narrow_terminal_has_lines_that_fit(worker, monkeypatch, capsys):
    text = shown(worker, monkeypatch, capsys, 40, is_terminal=True)

    assert program.ARTWORK[0].rstrip() not in text
    assert "\n.> transport:   memory://" in text


def test_a_file_gets_no_colours_and_the_drawing(worker, monkeypatch, capsys):
    worker.colored.enabled = True
    text = shown(worker, monkeypatch, capsys, 40, is_terminal=False)

    assert "\x1b[" not in text
    assert program.ARTWORK[0].rstrip() in text


def test_the_list_of_tasks_comes_with_level_info_and_builtins_with_debug(worker):
    assert "[tasks]" in worker.extra_info()
    assert "celery.backend_cleanup" not in worker.extra_info()
    worker.loglevel = 10
    assert "  . celery.backend_cleanup" in worker.extra_info()
    worker.loglevel = 30
    assert worker.extra_info() is None

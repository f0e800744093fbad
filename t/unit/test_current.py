"""The current app and task: celery._state."""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from celery import _state


@pytest.fixture(autouse=True)
def clean_state():
    yield
    _state._task_stack.__release_local__()


class App:
    """Stands for an app; may be referred to weakly."""


def test_the_current_app_is_that_of_the_thread():
    default, mine = App(), App()
    _state.set_default_app(default)
    _state._set_current_app(mine)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(_state.get_current_app()))
    thread.start()
    thread.join()

    assert _state.get_current_app() is mine
    assert seen == [default]
    assert _state.app_or_default() is mine
    assert _state.app_or_default(default) is default


def test_the_proxy_follows_the_current_app():
    app = App()
    app.main = "here"
    _state._set_current_app(app)
    assert _state.current_app.main == "here"


def test_an_app_that_nobody_keeps_is_forgotten():
    app = App()
    _state._register_app(app)
    assert app in _state._get_active_apps()
    _state._deregister_app(app)
    assert app not in _state._get_active_apps()
    _state._register_app(App())
    assert all(type(known) is not App for known in _state._get_active_apps())


def test_the_current_task_is_the_innermost():
    worker_task = SimpleNamespace(name="outer", request=SimpleNamespace(called_directly=False))
    called = SimpleNamespace(name="inner", request=SimpleNamespace(called_directly=True))
    assert _state.get_current_task() is None
    assert not _state.current_task
    _state.push_current_task(worker_task)
    _state.push_current_task(called)

    assert _state.current_task.name == "inner"
    assert _state.get_current_worker_task() is worker_task
    _state.pop_current_task()
    assert _state.get_current_task() is worker_task
    _state.pop_current_task()
    assert _state.get_current_worker_task() is None


def test_finalizers_are_called_once_for_an_app():
    calls = []
    callback = _state.connect_on_app_finalize(calls.append)
    _state.connect_on_app_finalize(callback)
    try:
        finalizers = dict(_state._on_app_finalizers)
        _state._on_app_finalizers.clear()
        _state._on_app_finalizers[callback] = None
        _state._announce_app_finalized("app")
    finally:
        finalizers.pop(callback)
        _state._on_app_finalizers.clear()
        _state._on_app_finalizers.update(finalizers)
    assert calls == ["app"]


def test_blocking_joins_are_a_flag_of_the_thread():
    _state._set_task_join_will_block(True)
    try:
        assert _state.task_join_will_block()
    finally:
        _state._set_task_join_will_block(None)
    assert not _state.task_join_will_block()


def test_a_child_forked_under_the_lock_can_register_apps():
    with _state._apps_lock:
        pid = os.fork()
        if not pid:
            _state._register_app(App())
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(
    ("name", "word"), [("C_STRICT_APP", "RuntimeError: No app"), ("C_WARN_APP", "UserWarning: No app")]
)
def test_falling_back_to_the_default_app_is_told_on_demand(name, word):
    code = "import celery; celery.current_app.main"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, name: "1"}, stderr=subprocess.PIPE, text=True, check=False
    )
    assert word in done.stderr


def test_tracing_says_where_the_current_app_is_used(capsys):
    _state._set_current_app(App())
    _state.enable_trace()
    try:
        _state.app_or_default()
    finally:
        _state.disable_trace()
    assert "RETURNING TO CURRENT APP" in capsys.readouterr().out
    assert _state.app_or_default() is _state.get_current_app()

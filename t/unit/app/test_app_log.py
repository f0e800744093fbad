"""Logging of programs."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings

import pytest

from celery import Celery, signals
from celery.app.log import Logging, TaskFormatter, expanded
from celery.exceptions import ImproperlyConfigured
from celery.utils.log import ColorFormatter, LoggingProxy, get_task_logger

NAMES = ("", "celery", "celery.task", "celery.redirected", "multiprocessing")


@pytest.fixture(autouse=True)
def clean():
    """Give each test loggers, environment and streams of its own."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    environment, streams, filters = os.environ.copy(), (sys.stdout, sys.stderr), warnings.filters[:]
    for logger in loggers:
        logger.handlers = []
    Logging._setup = False
    yield
    Logging._setup = False
    for logger, handlers, level, propagate in before:
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout, sys.stderr = streams
    logging.captureWarnings(False)
    warnings.filters[:] = filters


@pytest.fixture
def app():
    with Celery("test", set_as_current=False, fixups=[]) as app:
        yield app


@pytest.fixture
def heard():
    """Receive a signal while the test runs."""
    connected = []

    def listen(signal):
        calls = []

        def receive(**kwargs):
            calls.append(kwargs)

        signal.connect(receive, weak=False)
        connected.append((signal, receive))
        return calls

    yield listen
    for signal, receive in connected:
        signal.disconnect(receive)


def handler_of(name):
    (handler,) = [each for each in logging.getLogger(name).handlers if type(each) is not logging.NullHandler]
    return handler


def test_root_and_tasks_get_handlers_with_their_formats(app, heard):
    root_calls, task_calls = heard(signals.after_setup_logger), heard(signals.after_setup_task_logger)
    logfile = io.StringIO()
    app.log.setup(loglevel="INFO", logfile=logfile)

    assert logging.getLogger().level == logging.getLogger("celery.task").level == logging.INFO
    assert logging.getLogger("celery.task").propagate is False
    assert type(handler_of("").formatter) is ColorFormatter
    assert type(handler_of("celery.task").formatter) is TaskFormatter
    assert handler_of("").formatter._fmt == app.conf.worker_log_format
    assert handler_of("celery.task").formatter._fmt == app.conf.worker_task_log_format
    assert logging.getLogger("multiprocessing").level == logging.ERROR
    assert [(call["logger"].name, call["loglevel"], call["colorize"]) for call in root_calls + task_calls] == [
        ("root", logging.INFO, False),
        ("celery.task", logging.INFO, False),
    ]


def test_settings_give_formats_and_dates(app):
    app.conf.update(
        worker_log_format="R %(asctime)s %(message)s",
        worker_task_log_format="T %(asctime)s %(task_name)s %(message)s",
        worker_log_datefmt="%Y",
        worker_task_log_datefmt="%m",
    )
    logfile = io.StringIO()
    app.log.setup(loglevel="INFO", logfile=logfile)
    logging.getLogger("other").info("one")
    get_task_logger("test_app_log.tasks").info("two")

    import time

    assert logfile.getvalue() == f"R {time.strftime('%Y')} one\nT {time.strftime('%m')} ??? two\n"


def test_a_record_of_a_task_names_it(app):
    formatter = TaskFormatter("%(task_name)s %(task_id)s %(message)s", use_color=False)
    lines = []

    @app.task(shared=False, name="noisy", bind=True)
    def noisy(self):
        record = logging.LogRecord("x", logging.INFO, "p", 1, "said", (), None)
        lines.append(formatter.format(record))

    noisy.push_request(id="id-1")
    try:
        from celery import _state

        _state.push_current_task(noisy._get_current_object())
        noisy.run()
        _state.pop_current_task()
    finally:
        noisy.pop_request()

    assert lines == ["noisy id-1 said"]


def test_it_is_set_up_once(app):
    assert not app.log.already_setup
    app.log.setup(loglevel="INFO", logfile=io.StringIO())
    before = handler_of("")

    assert app.log.already_setup
    assert app.log.setup(loglevel="DEBUG", logfile=io.StringIO()) is None
    assert handler_of("") is before


def test_receivers_of_setup_logging_take_it_over(app, heard):
    calls = heard(signals.setup_logging)

    assert app.log.setup(loglevel="INFO", redirect_stdouts=True)
    assert not [each for each in logging.getLogger().handlers if isinstance(each.formatter, ColorFormatter)]
    assert not isinstance(sys.stdout, LoggingProxy)
    assert calls[0]["loglevel"] == logging.INFO


@pytest.mark.parametrize("hijack", [True, False])
def test_handlers_of_the_users_own_stay_only_without_hijacking(app, hijack):
    mine = logging.StreamHandler(io.StringIO())
    logging.getLogger().handlers = [mine]
    app.conf.worker_hijack_root_logger = hijack
    app.log.setup(loglevel="INFO", logfile=io.StringIO())

    assert (handler_of("") is mine) is not hijack


def test_printing_becomes_logging(app):
    logfile = io.StringIO()
    app.log.setup(loglevel="INFO", logfile=logfile, redirect_stdouts=True, redirect_level="WARNING")
    print("hello")

    assert isinstance(sys.stdout, LoggingProxy)
    assert isinstance(sys.stderr, LoggingProxy)
    assert "WARNING" in logfile.getvalue()
    assert "hello" in logfile.getvalue()
    assert (os.environ["CELERY_LOG_REDIRECT"], os.environ["CELERY_LOG_REDIRECT_LEVEL"]) == ("1", "WARNING")


def test_one_stream_can_be_redirected_alone(app):
    proxy = app.log.redirect_stdouts_to_logger(logging.getLogger("x"), "INFO", stdout=False)

    assert sys.stderr is proxy
    assert sys.stdout is not proxy


def test_the_log_file_is_named_after_the_node(app, tmp_path):
    app.log.setup(loglevel="INFO", logfile=str(tmp_path / "%n-%h-%i%I.log"), hostname="w1@host.example.com")
    logging.getLogger().warning("written")
    handler_of("").flush()

    assert "written" in (tmp_path / "w1-host.example.com-0.log").read_text()
    assert os.environ["CELERY_LOG_FILE"] == str(tmp_path / "%n-%h-%i%I.log")
    assert os.environ["CELERY_LOG_LEVEL"] == str(logging.INFO)


def test_a_pool_process_has_a_number(monkeypatch):
    monkeypatch.setattr("celery.app.log.current_process_index", lambda: 3)

    assert expanded("%n-%i%I.log", "w1@h") == "w1-3-3.log"


def test_a_log_file_that_cannot_be_written_is_named(app, tmp_path):
    path = tmp_path / "no" / "such.log"
    with pytest.raises(ImproperlyConfigured, match=f"Cannot write the log file {path}: No such file or directory"):
        app.log.setup(logfile=str(path))


def test_colours_are_for_terminals(app, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert app.log.supports_color() is False
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert app.log.supports_color() is True
    assert app.log.supports_color(False) is False
    assert app.log.supports_color(True, "x.log") is False
    assert app.log.colored(enabled=True).enabled is True
    with Celery("plain", set_as_current=False, fixups=[], worker_log_color=False) as plain:
        assert plain.log.supports_color() is False


def test_loggers_have_names(app):
    assert app.log.get_default_logger().name == "celery"
    assert app.log.get_default_logger("other").name == "other"

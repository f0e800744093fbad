import io
import logging
import sys

import pytest

from celery.utils import log
from celery.utils.log import (
    ColorFormatter,
    LoggingProxy,
    base_logger,
    current_process_index,
    get_logger,
    get_multiprocessing_logger,
    get_task_logger,
    in_sighandler,
    iter_open_logger_fds,
    logger_isa,
    mlevel,
    reset_multiprocessing_logger,
    set_in_sighandler,
    task_logger,
    worker_logger,
)


@pytest.fixture
def logger(request):
    """A logger that keeps its records in ``logger.records``."""
    made = logging.Logger(request.node.name)
    made.records = []

    class Keep(logging.Handler):
        def emit(self, record):
            made.records.append((record.levelno, record.getMessage()))

    made.addHandler(Keep())
    return made


def record(level, message, *args, exc_info=None):
    return logging.LogRecord("name", level, "file", 1, message, args, exc_info)


@pytest.mark.parametrize(
    ("level", "color"),
    [("DEBUG", "1;34"), ("INFO", None), ("WARNING", "1;33"), ("ERROR", "1;31"), ("CRITICAL", "1;35")],
)
def test_records_have_the_colour_of_their_level(level, color):
    text = ColorFormatter("%(levelname)s %(message)s").format(record(logging.getLevelName(level), "hi %s", 1))
    assert text == (f"\033[{color}m{level} hi 1\033[0m" if color else f"{level} hi 1")
    plain = ColorFormatter("%(message)s", use_color=False).format(record(logging.ERROR, "x"))
    assert plain == "x"


def test_a_traceback_is_coloured_too():
    try:
        raise ValueError("boom")
    except ValueError:
        text = ColorFormatter("%(message)s").format(record(logging.ERROR, "m", exc_info=sys.exc_info()))
    assert text.startswith("\033[1;31mm\nTraceback")
    assert text.endswith("ValueError: boom\033[0m")


def test_loggers_of_tasks_lie_below_ours():
    logger = get_task_logger("some.module")
    assert logger.parent is task_logger
    assert logger_isa(logger, task_logger)
    assert logger_isa(logger, base_logger)
    assert not logger_isa(task_logger, logger)
    assert get_task_logger("celery.task.sub").parent is task_logger
    assert task_logger.parent is worker_logger.parent is base_logger
    for name in ("celery", "celery.task"):
        with pytest.raises(RuntimeError, match="reserved"):
            get_task_logger(name)


def test_a_loop_above_a_logger_is_told():
    one, other = logging.Logger("one"), logging.Logger("other")
    one.parent, other.parent = other, one
    with pytest.raises(RuntimeError, match="loop"):
        logger_isa(one, logging.Logger("third"))


def test_loggers_are_silent_where_logging_is_not_set_up():
    assert [type(handler) for handler in get_logger("quiet").handlers] == [logging.NullHandler]
    assert get_logger("quiet") is logging.getLogger("quiet")


@pytest.mark.parametrize(("name", "number"), [("info", 20), ("WARN", 30), (5, 5), (None, None), (0, 0)])
def test_levels_are_names_or_numbers(name, number):
    assert mlevel(name) == number


def test_what_is_printed_is_logged(logger):
    proxy = LoggingProxy(logger, "WARNING")
    print("one two", file=proxy)
    proxy.writelines(["three\n", "\n"])
    proxy.write(b"four")
    assert logger.records == [(30, "one two"), (30, "three"), (30, "four")]
    assert (proxy.isatty(), proxy.flush(), proxy.loglevel) == (False, None, 30)


def test_writing_says_how_much_was_written(logger):
    assert LoggingProxy(logger).write("abc\n") == 4
    assert LoggingProxy(logger).write("") == 0


def test_a_handler_that_prints_does_not_log_for_ever(logger):
    proxy = LoggingProxy(logger)

    class Echo(logging.Handler):
        def emit(self, record):
            proxy.write("again")

    logger.addHandler(Echo())
    proxy.write("once")
    assert [message for _, message in logger.records] == ["once"]
    proxy.write("twice")
    assert len(logger.records) == 2


def test_a_closed_proxy_logs_nothing(logger):
    proxy = LoggingProxy(logger)
    proxy.close()
    assert proxy.write("x") == 0
    assert logger.records == []


def test_a_handler_that_fails_reports_to_the_real_stderr(logger, monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", stderr)

    class Failing(logging.Handler):
        def emit(self, record):
            try:
                raise OSError("disk full")
            except OSError:
                self.handleError(record)

    logger.addHandler(Failing())
    LoggingProxy(logger).write("x")
    assert "disk full" in stderr.getvalue()


def test_in_a_signal_handler_nothing_is_logged(logger, monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", stderr)
    with in_sighandler():
        LoggingProxy(logger).write("urgent")
    assert (stderr.getvalue(), logger.records) == ("urgent\n", [])
    set_in_sighandler(False)
    LoggingProxy(logger).write("calm")
    assert logger.records


def test_open_files_of_loggers_are_found(tmp_path):
    handler = logging.FileHandler(tmp_path / "log")
    logger = logging.getLogger("with.file")
    logger.addHandler(handler)
    try:
        assert list(iter_open_logger_fds()).count(handler.stream) == 1
    finally:
        logger.removeHandler(handler)
        handler.close()


def test_the_logger_of_processes_is_made_anew():
    logger = get_multiprocessing_logger()
    assert logger.name
    reset_multiprocessing_logger()
    from billiard import util

    assert util._logger is None
    assert current_process_index() is None
    assert log.current_process().name == "MainProcess"

"""Loggers, coloured records, and writing to standard output as logging."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .term import colored

__all__ = (
    "ColorFormatter",
    "LoggingProxy",
    "base_logger",
    "set_in_sighandler",
    "in_sighandler",
    "get_logger",
    "get_task_logger",
    "mlevel",
    "get_multiprocessing_logger",
    "reset_multiprocessing_logger",
    "LOG_LEVELS",
)

#: both ways: by name and by number
LOG_LEVELS: dict[Any, Any] = {
    "CRITICAL": logging.CRITICAL,
    "FATAL": logging.FATAL,
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "NOTSET": logging.NOTSET,
    logging.CRITICAL: "CRITICAL",
    logging.ERROR: "ERROR",
    logging.WARNING: "WARNING",
    logging.INFO: "INFO",
    logging.DEBUG: "DEBUG",
    logging.NOTSET: "NOTSET",
}

MP_LOG = os.environ.get("MP_LOG", False)

RESERVED_LOGGER_NAMES = {"celery", "celery.task"}

_in_sighandler = False


def set_in_sighandler(value: bool) -> None:
    """Say whether a signal handler runs, so that nothing is logged through locks it may hold."""
    global _in_sighandler
    _in_sighandler = value


@contextmanager
def in_sighandler() -> Iterator[None]:
    """Mark the time that a signal handler runs."""
    set_in_sighandler(True)
    try:
        yield
    finally:
        set_in_sighandler(False)


def iter_open_logger_fds() -> Iterator[Any]:
    """Yield the files that loggers have open, each once."""
    seen = set()
    loggers: list[Any] = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            stream = getattr(handler, "stream", None)
            if stream is not None and id(stream) not in seen:
                seen.add(id(stream))
                yield stream


def logger_isa(l: logging.Logger, p: logging.Logger, max: int = 1000) -> bool:  # noqa: E741  # public name
    """Say whether ``l`` is ``p`` or below it."""
    current: logging.Logger | None = l
    for _ in range(max):
        if current is p:
            return True
        if current is None or current.parent is None:
            return False
        current = current.parent
    raise RuntimeError(f"Logger hierarchy exceeds {max} levels: is there a loop above {l.name!r}?")


def _named(name: str | logging.Logger) -> logging.Logger:
    """Return a logger; it has a handler, so that the standard library does not print on its own."""
    logger = logging.getLogger(name) if isinstance(name, str) else name
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


base_logger = _named("celery")
worker_logger = _named("celery.worker")
task_logger = _named("celery.task")


def get_logger(name: str | logging.Logger) -> logging.Logger:
    """Return the logger ``name``; it is put below ``celery`` if nothing is above it."""
    return _named(name)


def get_task_logger(name: str) -> logging.Logger:
    """Return a logger for code of tasks: below ``celery.task``, so its records name the task.

    Raises:
        RuntimeError: the name is one of ours.
    """
    if name in RESERVED_LOGGER_NAMES:
        raise RuntimeError(f"Logger name {name!r} is reserved! Use the name of your module: get_task_logger(__name__)")
    logger = _named(name)
    if logger is not task_logger and not logger_isa(logger, task_logger):
        logger.parent = task_logger
    return logger


def mlevel(level: Any) -> Any:
    """Return the number of a level given by name or number; nothing is returned as it is."""
    return LOG_LEVELS[level.upper()] if level and not isinstance(level, int) else level


class ColorFormatter(logging.Formatter):
    """Formats records in the colour of their level."""

    COLORS = colored().names
    colors = {
        "DEBUG": COLORS["blue"],
        "WARNING": COLORS["yellow"],
        "ERROR": COLORS["red"],
        "CRITICAL": COLORS["magenta"],
    }

    def __init__(self, fmt: str | None = None, use_color: bool = True, datefmt: str | None = None) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = use_color

    def formatException(self, ei: Any) -> str:
        if ei and not isinstance(ei, tuple):
            ei = sys.exc_info()
        return super().formatException(ei)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        color = self.colors.get(record.levelname)
        if color is None or not self.use_color:
            return text
        return str(color(text))


class LoggingProxy:
    """Looks like a file and logs what is written, so that ``print`` in tasks comes out as log records."""

    mode = "w"
    name: str | None = None
    closed = False
    loglevel: int = logging.ERROR
    _thread = threading.local()

    def __init__(self, logger: logging.Logger, loglevel: Any = None) -> None:
        self.logger = logger
        self.loglevel = mlevel(loglevel or self.logger.level or self.loglevel)
        self._safewrap_handlers()

    def _safewrap_handlers(self) -> None:
        """Have handlers report their own errors to the real stderr; it may be us they would write to."""

        class WithSafeHandleError(logging.Handler):
            def handleError(self, record: logging.LogRecord) -> None:
                try:
                    traceback.print_exc(None, sys.__stderr__)
                except OSError:
                    pass  # a closed stderr can be told nothing

        for handler in self.logger.handlers:
            handler.handleError = WithSafeHandleError().handleError  # type: ignore[method-assign]

    def write(self, data: str | bytes) -> int:
        """Log ``data`` without its line end; return how much it was."""
        # a handler that prints in turn would never come to an end
        if _in_sighandler:
            print(_as_text(data), file=sys.__stderr__)
            return len(data)
        if getattr(self._thread, "recurse_protection", False) or self.closed or not data:
            return 0
        text = _as_text(data).rstrip("\n")
        if text:
            self._thread.recurse_protection = True
            try:
                self.logger.log(self.loglevel, text)
            finally:
                self._thread.recurse_protection = False
        return len(data) if isinstance(data, (str, bytes)) else len(text)

    def writelines(self, sequence: Iterable[str]) -> None:
        for part in sequence:
            self.write(part)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Ignore what is written from now on."""
        self.closed = True

    def isatty(self) -> bool:
        return False


def _as_text(data: Any) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else str(data)


def get_multiprocessing_logger() -> Any:
    """Return billiard's logger, or ``None`` where billiard cannot run."""
    try:
        from billiard import util
    except ImportError:
        return None
    return util.get_logger()


def reset_multiprocessing_logger() -> None:
    """Have billiard make its logger anew when it next needs one."""
    try:
        from billiard import util
    except ImportError:
        return
    if hasattr(util, "_logger"):
        util._logger = None


def current_process() -> Any:
    """Return billiard's idea of this process, or ``None`` where billiard cannot run."""
    try:
        from billiard import process
    except ImportError:
        return None
    return process.current_process()


def current_process_index(base: int = 1) -> int | None:
    """Return the number of this pool process, counted from ``base``, or ``None`` in the parent."""
    index: int | None = getattr(current_process(), "index", None)
    return index + base if index is not None else index

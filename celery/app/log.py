"""``app.log``: logging of programs: formats, colours, files, and print() as log records."""

from __future__ import annotations

import logging
import os
import sys
from logging.handlers import WatchedFileHandler
from typing import Any

from celery import signals
from celery._state import get_current_task
from celery.exceptions import CDeprecationWarning, CPendingDeprecationWarning, ImproperlyConfigured
from celery.utils.log import (
    ColorFormatter,
    LoggingProxy,
    current_process_index,
    get_logger,
    get_multiprocessing_logger,
    mlevel,
    reset_multiprocessing_logger,
)
from celery.utils.nodenames import node_format
from celery.utils.term import colored

__all__ = ("TaskFormatter", "Logging")

MP_LOG = os.environ.get("MP_LOG", False)


class TaskFormatter(ColorFormatter):
    """Gives a format the fields ``task_name`` and ``task_id`` of the task that runs."""

    def format(self, record: logging.LogRecord) -> str:
        task = get_current_task()
        if task and task.request:
            record.__dict__.update(task_id=task.request.id, task_name=task.name)
        else:
            record.__dict__.setdefault("task_name", "???")
            record.__dict__.setdefault("task_id", "???")
        return super().format(record)


class Logging:
    """Sets up logging once in a process; the signal ``setup_logging`` lets users do it instead."""

    #: of the class: apps of one process share the loggers
    _setup = False
    #: The log file's name as it was given, and what became of it in this process.
    _pattern: str | None = None
    _logfile: str | None = None

    def __init__(self, app: Any) -> None:
        conf = app.conf
        self.app = app
        self.loglevel: Any = mlevel(logging.WARNING)
        self.format: str = conf.worker_log_format
        self.datefmt: str | None = conf.worker_log_datefmt
        self.task_format: str = conf.worker_task_log_format
        self.task_datefmt: str | None = conf.worker_task_log_datefmt
        self.colorize: bool | None = conf.worker_log_color

    @property
    def already_setup(self) -> bool:
        return self._setup

    def setup(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        redirect_stdouts: bool = False,
        redirect_level: Any = "WARNING",
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> Any:
        """Set up all of a program's logging; return true if receivers of ``setup_logging`` did.

        Environment variables tell processes that are started from here to do the same.
        """
        loglevel = mlevel(loglevel)
        handled = self.setup_logging_subsystem(loglevel, logfile, colorize=colorize, hostname=hostname)
        if not handled and redirect_stdouts:
            self.redirect_stdouts(redirect_level)
        os.environ.update(CELERY_LOG_LEVEL=str(loglevel) if loglevel else "", CELERY_LOG_FILE=str(logfile or ""))
        import warnings

        warnings.filterwarnings("always", category=CDeprecationWarning)
        warnings.filterwarnings("always", category=CPendingDeprecationWarning)
        logging.captureWarnings(True)
        return handled

    def redirect_stdouts(self, loglevel: Any = None, name: str = "celery.redirected") -> None:
        """Log what this process, and those started from it, write to stdout and stderr."""
        self.redirect_stdouts_to_logger(get_logger(name), loglevel=loglevel)
        os.environ.update(CELERY_LOG_REDIRECT="1", CELERY_LOG_REDIRECT_LEVEL=str(loglevel or ""))

    def setup_logging_subsystem(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        format: str | None = None,
        colorize: bool | None = None,
        hostname: str | None = None,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Set up the root logger and that of tasks, unless that was done; return the receivers that did it instead.

        ``%h``, ``%n``, ``%d``, ``%i`` and ``%I`` in ``logfile`` are replaced by parts of ``hostname`` and by the
        number of the pool process.
        """
        if self.already_setup:
            return None
        if logfile and hostname and isinstance(logfile, (str, os.PathLike)):
            Logging._pattern = os.fspath(logfile)
            logfile = Logging._logfile = expanded(logfile, hostname)
        Logging._setup = True
        loglevel = mlevel(loglevel or self.loglevel)
        format = format or self.format
        datefmt = datefmt or self.datefmt
        colorize = self.supports_color(colorize, logfile)
        reset_multiprocessing_logger()
        receivers = signals.setup_logging.send(
            sender=None, loglevel=loglevel, logfile=logfile, format=format, colorize=colorize
        )
        if not receivers:
            self._setup_root(loglevel, logfile, format, colorize, datefmt)
            self.setup_task_loggers(loglevel, logfile, colorize=colorize, **kwargs)
        os.environ.update(
            _MP_FORK_LOGLEVEL_=str(loglevel), _MP_FORK_LOGFILE_=str(logfile or ""), _MP_FORK_LOGFORMAT_=format
        )
        return receivers

    def move_to_own_file(self, hostname: str) -> None:
        """In a forked child: write to the file of this process, if ``%i`` or ``%I`` make that another one."""
        if Logging._pattern is None or Logging._logfile is None:
            return
        ours, parents = expanded(Logging._pattern, hostname), os.path.abspath(Logging._logfile)
        if os.path.abspath(ours) == parents:
            return
        for logger in (logging.getLogger(), get_logger("celery.task"), get_multiprocessing_logger()):
            for handler in getattr(logger, "handlers", ()):
                if isinstance(handler, WatchedFileHandler) and handler.baseFilename == parents:
                    _reopen(handler, os.path.abspath(ours))
        Logging._logfile = ours

    def _setup_root(self, loglevel: Any, logfile: Any, format: str, colorize: bool, datefmt: str | None) -> None:
        root = logging.getLogger()
        if self.app.conf.worker_hijack_root_logger:
            root.handlers = []
            get_logger("celery").handlers = []
            get_logger("celery.redirected").handlers = []
        self.setup_handlers(root, logfile, format, colorize, datefmt=datefmt)
        root.setLevel(loglevel)
        billiards = get_multiprocessing_logger()
        if billiards is not None:
            self.setup_handlers(billiards, logfile, format, colorize, datefmt=datefmt)
            billiards.setLevel(loglevel if MP_LOG else logging.ERROR)
        signals.after_setup_logger.send(
            sender=None, logger=root, loglevel=loglevel, logfile=logfile, format=format, colorize=colorize
        )

    def setup_task_loggers(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        format: str | None = None,
        colorize: bool | None = None,
        propagate: bool = False,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> logging.Logger:
        """Set up ``celery.task``, the logger above those that ``get_task_logger`` gives; return it."""
        loglevel = mlevel(loglevel or self.loglevel)
        format = format or self.task_format
        colorize = self.supports_color(colorize, logfile)
        logger = self.setup_handlers(
            get_logger("celery.task"),
            logfile,
            format,
            colorize,
            formatter=TaskFormatter,
            datefmt=datefmt or self.task_datefmt,
            **kwargs,
        )
        logger.setLevel(loglevel)
        logger.propagate = bool(propagate)
        signals.after_setup_task_logger.send(
            sender=None, logger=logger, loglevel=loglevel, logfile=logfile, format=format, colorize=colorize
        )
        return logger

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: Any = None, stdout: bool = True, stderr: bool = True
    ) -> LoggingProxy:
        """Put a file that logs in the place of stdout and stderr; return it."""
        proxy = LoggingProxy(logger, loglevel)
        if stdout:
            sys.stdout = proxy
        if stderr:
            sys.stderr = proxy
        return proxy

    def supports_color(self, colorize: bool | None = None, logfile: Any = None) -> bool:
        """Whether to log in colours: on a terminal only, and unless the user does not want it."""
        colorize = self.colorize if colorize is None else colorize
        if self.app.IS_WINDOWS or logfile or not (colorize or colorize is None):
            return False
        return bool(sys.stderr is not None and sys.stderr.isatty())

    def colored(self, logfile: Any = None, enabled: bool | None = None) -> colored:
        """Return what colours text for where ``logfile`` goes."""
        return colored(enabled=self.supports_color(enabled, logfile))

    def setup_handlers(
        self,
        logger: logging.Logger,
        logfile: Any,
        format: str,
        colorize: bool,
        formatter: Any = ColorFormatter,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> logging.Logger:
        """Have ``logger`` write to ``logfile`` (a name or an open file; stderr if none), unless it has a handler."""
        if not any(type(handler) is not logging.NullHandler for handler in logger.handlers):
            handler = _handler_for(logfile)
            handler.setFormatter(formatter(format, use_color=colorize, datefmt=datefmt))
            logger.addHandler(handler)
        return logger

    def get_default_logger(self, name: str = "celery", **kwargs: Any) -> logging.Logger:
        return get_logger(name)


def expanded(logfile: Any, hostname: str) -> str:
    """Return the log file name of this process of the node ``hostname``."""
    index = current_process_index()
    return str(node_format(os.fspath(logfile), hostname, i=str(index or 0), I=f"-{index}" if index else ""))


def _reopen(handler: WatchedFileHandler, path: str) -> None:
    """Let ``handler`` write to ``path``, or on to its present file where that cannot be."""
    present, handler.baseFilename = handler.baseFilename, path
    try:
        handler.reopenIfNeeded()
    except OSError as error:
        handler.baseFilename = present
        handler.reopenIfNeeded()
        logging.getLogger(__name__).warning("Cannot write the log file %s: %s", path, error.strerror)


def _handler_for(logfile: Any) -> logging.Handler:
    logfile = sys.__stderr__ if logfile is None else logfile
    if hasattr(logfile, "write"):
        return logging.StreamHandler(logfile)
    try:
        return WatchedFileHandler(logfile, encoding="utf-8")
    except OSError as error:
        raise ImproperlyConfigured(f"Cannot write the log file {logfile}: {error.strerror}.") from error

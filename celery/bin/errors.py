"""What users see when something goes wrong: one line with a way out, and an exit status.

Usage errors (status 2) are click's own.  A traceback appears only with ``--debug``.
"""

from __future__ import annotations

import os
import traceback
import warnings
from typing import Any

import click

from celery.app.brokers import is_login_refused, login_refused, unreachable
from celery.exceptions import CeleryWarning, ImproperlyConfigured, OperationalError, SecurityError
from celery.platforms import EX_FAILURE, EX_UNAVAILABLE, LockFailed

__all__ = (
    "EX_CONFIG",
    "Failure",
    "explained",
    "is_of_project",
    "last_user_frame",
    "show_warnings_in_a_line",
    "store_unreadable",
)

#: sysexits.h: something is wrong with the configuration.
EX_CONFIG = getattr(os, "EX_CONFIG", 78)

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


class Failure(click.ClickException):
    """Ends the program with a line and a status."""

    def __init__(self, message: str, exit_code: int = EX_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance, too


def explained(error: Exception, app: Any = None) -> Failure:
    """Return what to tell the user about ``error``."""
    if isinstance(error, (ImproperlyConfigured, LockFailed)):
        return Failure(str(error), EX_CONFIG)
    if isinstance(error, SecurityError):
        return Failure(str(error), EX_FAILURE)
    connection = _connection(app)
    if connection is not None:
        if is_login_refused(error):
            return Failure(login_refused(connection, error), EX_CONFIG)
        if isinstance(error, (OperationalError, *connection.connection_errors)):
            return Failure(f"{unreachable(connection, error)} {_place(app)}", EX_UNAVAILABLE)
    hint = "" if isinstance(error, click.ClickException) else "  --debug (before the command) shows where."
    frame = last_user_frame(error)
    place = f" ({os.path.relpath(frame.filename)} line {frame.lineno})" if frame and is_of_project(frame) else ""
    return Failure(f"{type(error).__name__}: {str(error).rstrip()}{place}{hint}", EX_FAILURE)


def last_user_frame(error: BaseException) -> traceback.FrameSummary | None:
    """Return the frame nearest to the error that is not of the machinery that imports, nor of ours.

    One of the project is better than one of a library that it called.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename
        and not frame.filename.startswith((_OURS, "<frozen"))
        and f"{os.sep}kombu{os.sep}" not in frame.filename
    ]
    found = [frame for frame in frames if is_of_project(frame)] or frames
    return found[-1] if found else None


def is_of_project(frame: traceback.FrameSummary) -> bool:
    """Whether that line is the user's own, not that of a library."""
    return not frame.filename.startswith(_STANDARD_LIBRARY) and f"{os.sep}site-packages{os.sep}" not in frame.filename


def store_unreadable(app: Any, error: Exception) -> Failure:
    """Return what to tell the user when the result store gave ``error`` in place of a record."""
    where = f"Cannot read the result store {app.backend.as_uri()} ({str(error).rstrip(' .') or type(error).__name__})."
    return Failure(f"{where} `result_backend`, or the option --result-backend, says where it is.", EX_UNAVAILABLE)


def _connection(app: Any) -> Any:
    try:
        return None if app is None else app.connection_for_write()
    except Exception:  # the configuration may be what the error is about
        return None


def _place(app: Any) -> str:
    if app.conf.broker_url:
        return "Is it running?  `broker_url`, or the option -b, says where it is."
    return "No `broker_url` is set: give one in the configuration, or by the option -b."


def show_warnings_in_a_line() -> None:
    """Show our own warnings without file, line and source: to users of a program these tell nothing."""
    usual = warnings.formatwarning

    def formatted(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
        if isinstance(category, type) and issubclass(category, CeleryWarning):
            text = " ".join(str(message).split())
            return f"{category.__name__}: {text}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = formatted

"""What a program looks at and takes on before it starts, while there is somebody to complain to."""

from __future__ import annotations

import os
import shutil
from typing import Any

import click
from click.core import ParameterSource

from celery.bin.errors import EX_CONFIG, Failure
from celery.platforms import LockFailed, create_pidlock, maybe_drop_privileges, parse_gid, parse_uid

__all__ = (
    "become",
    "check_executable",
    "check_identity",
    "check_writable",
    "parse_umask",
    "read_settings",
    "refuse_held_pidfile",
    "warn_of_options_without",
    "without_detach",
)


def check_writable(path: str | None, what: str) -> None:
    """Refuse a file that could not be made or written."""
    if not path or not isinstance(path, str):
        return
    directory = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        reason = "it is a directory"
    elif not os.path.isdir(directory):
        reason = "no such directory"
    elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
        reason = "permission denied"
    else:
        return
    raise Failure(f"Cannot write the {what} {path}: {reason}.", EX_CONFIG)


def refuse_held_pidfile(path: str | None) -> None:
    """Exit where a living process holds the pidfile, before anything goes to the background."""
    if path:
        check_writable(path, "pidfile")
        from celery.platforms.pidfiles import acquired

        try:
            acquired(path).release()
        except LockFailed as exc:
            raise Failure(str(exc), EX_CONFIG) from exc


def check_identity(uid: Any, gid: Any) -> None:
    """Refuse a user or a group that is not known here."""
    for value, parse in ((uid, parse_uid), (gid, parse_gid)):
        if value is None or value == "":
            continue
        try:
            parse(value)
        except KeyError as exc:
            raise Failure(f"{exc.args[0]}.", EX_CONFIG) from exc


def parse_umask(value: Any) -> int | None:
    """Return a umask given as an octal number in text, or as a number."""
    if value is None or value == "":
        return None
    try:
        mask = int(value, 8) if isinstance(value, str) else int(value)
    except (TypeError, ValueError):
        mask = -1
    if not 0 <= mask <= 0o777:
        raise Failure(f"The umask must be an octal number from 000 to 777, is {value!r}.", EX_CONFIG)
    return mask


def become(uid: Any, gid: Any, umask: int | None, pidfile: str | None) -> None:
    """Go on as this user and group, under this umask, with the pidfile held."""
    if umask is not None:
        os.umask(umask)
    if pidfile:  # before anything is given up: its place may be one that only the superuser writes to
        create_pidlock(pidfile)
    maybe_drop_privileges(uid=uid, gid=gid)


def check_executable(path: str | None) -> None:
    """Refuse a program that is not there."""
    if path and shutil.which(path) is None:
        raise Failure(f"--executable: there is no program {path} that could be run.", EX_CONFIG)


def warn_of_options_without(ctx: click.Context, needed: str, *names: str) -> None:
    """Tell of options on the command line that do nothing without the option ``needed``."""
    for name in names:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            click.echo(f"Warning: {option} has an effect together with {needed} only.", err=True)


def read_settings(app: Any, words: list[str], namespace: str) -> None:
    """Take over the settings that stand after ``--``, such as ``worker.prefetch_multiplier=2``."""
    if not words:
        return
    try:
        app.config_from_cmdline(words, namespace=namespace)
    except (KeyError, ValueError) as exc:
        reason = exc.args[0] if isinstance(exc, KeyError) and exc.args else exc
        raise click.UsageError(f"Cannot read the settings after `--`: {reason}") from exc


def without_detach(words: list[str]) -> list[str]:
    """Return the words of the command line for the daemon: it is in its directory already, and need not fork."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or word in ("--detach", "-D", "--workdir") or word.startswith("--workdir="):
            skip = word == "--workdir" and not skip
            continue
        kept.append(word)
    return kept

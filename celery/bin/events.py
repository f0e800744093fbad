"""``celery events``: watch what workers say about themselves and their tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from celery.bin.base import CeleryDaemonCommand, CeleryOption, handle_preload_options, log_level_option
from celery.bin.preflight import (
    become,
    check_identity,
    check_writable,
    parse_umask,
    refuse_held_pidfile,
    warn_of_options_without,
)
from celery.platforms import detached, set_process_title, strargv


@click.command(cls=CeleryDaemonCommand)
@click.option("-d", "--dump", cls=CeleryOption, is_flag=True, help_group="Dumper", help="Print each event.")
@click.option(
    "-c", "--camera", cls=CeleryOption, help_group="Snapshot", help="Camera class that takes pictures of the cluster."
)
@click.option("--detach", cls=CeleryOption, is_flag=True, help_group="Snapshot", help="Run in the background.")
@click.option(
    "-F",
    "--frequency",
    "--freq",
    type=float,
    default=1.0,
    cls=CeleryOption,
    help_group="Snapshot",
    help="Seconds between pictures.",
)
@click.option("-r", "--maxrate", cls=CeleryOption, help_group="Snapshot", help="Most pictures in a time, as 10/m.")
@log_level_option("Snapshot")
@click.pass_context
@handle_preload_options
def events(
    ctx: click.Context,
    dump: bool,
    camera: str | None,
    detach: bool,
    frequency: float,
    maxrate: str | None,
    loglevel: Any,
    **kwargs: Any,
) -> None:
    """Watch the cluster: on the whole terminal, event by event (--dump), or in pictures (--camera)."""
    app = ctx.obj.app
    if dump:
        from celery.events.dumper import evdump

        _set_title("dump")
        evdump(app=app, out=sys.stdout)
    elif camera:
        _run_camera(ctx, camera, frequency, maxrate, loglevel, detach, **kwargs)
    else:
        _run_monitor(app)


def _run_monitor(app: Any) -> None:
    try:
        from celery.events.cursesmon import evtop
    except ImportError as exc:  # a Python without curses: on Windows
        raise click.UsageError(f"There is no monitor without curses ({exc}); --dump prints each event.") from exc
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("The monitor needs a terminal; --dump prints each event, --camera takes pictures.")
    with app.connection_for_read() as connection:  # while there is a terminal to complain on
        connection.ensure_connection(max_retries=1, interval_start=0.2, reraise_as_library_errors=False)
    _set_title("top")
    evtop(app=app)


def _run_camera(
    ctx: click.Context,
    camera: str,
    frequency: float,
    maxrate: str | None,
    loglevel: Any,
    detach: bool,
    logfile: str | None = None,
    pidfile: str | None = None,
    uid: Any = None,
    gid: Any = None,
    umask: Any = None,
    executable: str | None = None,
    **kwargs: Any,
) -> None:
    from celery.events.snapshot import evcam

    app = ctx.obj.app
    if frequency <= 0:
        raise click.BadParameter(f"the frequency must be above 0 seconds, got {frequency:g}", ctx)
    check_identity(uid, gid)
    check_writable(logfile, "log file")
    mask = parse_umask(umask)
    if executable:
        warn_of_options_without(ctx, "`celery worker --detach`", "executable")
    run: Callable[[], None] = partial(
        evcam,
        _camera_class(camera),
        freq=frequency,
        maxrate=maxrate,
        loglevel=loglevel,
        logfile=logfile,
        pidfile=pidfile if detach else None,  # else it is held before anything is given up
        app=app,
    )
    _set_title("cam")
    if not detach:
        become(uid, gid, mask, pidfile)
        run()
        return
    refuse_held_pidfile(pidfile)
    with detached(logfile, pidfile, uid, gid, mask):
        run()


def _camera_class(path: str) -> Any:
    """Return the class that ``path`` names.

    Raises:
        click.UsageError: there is none.
    """
    from celery.utils.imports import symbol_by_name

    try:
        return symbol_by_name(path)
    except (ImportError, AttributeError, ValueError) as exc:
        raise click.UsageError(f"--camera: there is no class {path} ({exc}).") from exc


def _set_title(what: str) -> None:
    set_process_title(f"celery events:{what}", info=strargv(sys.argv))

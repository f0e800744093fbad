"""``celery beat``: send periodic tasks."""

from __future__ import annotations

import sys
from typing import Any

import click

from celery.app.settings.table import DEFAULTS
from celery.beat.shelf import is_shelf
from celery.bin.base import CeleryDaemonCommand, CeleryOption, handle_preload_options, log_level_option, or_setting
from celery.bin.preflight import (
    become,
    check_executable,
    check_identity,
    check_writable,
    parse_umask,
    read_settings,
    refuse_held_pidfile,
    warn_of_options_without,
    without_detach,
)
from celery.bin.worker import detach as detach_

__all__ = ("beat",)


@click.command(cls=CeleryDaemonCommand, context_settings={"allow_extra_args": True}, short_help="Send periodic tasks.")
@click.option(
    "--detach",
    cls=CeleryOption,
    is_flag=True,
    default=False,
    help_group="Beat Options",
    help="Run in the background.",
)
@click.option(
    "-s",
    "--schedule",
    cls=CeleryOption,
    type=click.Path(),
    callback=or_setting("beat_schedule_filename"),
    help_group="Beat Options",
    help="File in which beat keeps what it has sent.",
)
@click.option(
    "-S",
    "--scheduler",
    cls=CeleryOption,
    callback=or_setting("beat_scheduler"),
    help_group="Beat Options",
    help="Scheduler class.",
)
@click.option(
    "--max-interval",
    cls=CeleryOption,
    type=int,
    help_group="Beat Options",
    help="Seconds between two looks at the schedule, at most.",
)
@click.option(
    "--enable-remote-control/--no-enable-remote-control",
    "remote_control",
    cls=CeleryOption,
    is_flag=True,
    default=None,
    help_group="Beat Options",
    help="Answer `celery inspect ping` while beat ticks.",
)
@click.option(
    "-n",
    "--hostname",
    cls=CeleryOption,
    help_group="Beat Options",
    help="Name of this node for remote control; celerybeat@%h if not given.",
)
@log_level_option("Beat Options")
@click.pass_context
@handle_preload_options
def beat(
    ctx: click.Context,
    detach: bool = False,
    logfile: str | None = None,
    pidfile: str | None = None,
    uid: Any = None,
    gid: Any = None,
    umask: Any = None,
    executable: str | None = None,
    **kwargs: Any,
) -> None:
    """Send periodic tasks: what `beat_schedule` names, or the scheduler of your choice."""
    app = ctx.obj.app
    read_settings(app, ctx.args, "beat")
    app.conf.validate()
    check_identity(uid, gid)
    umask = parse_umask(umask)
    check_writable(logfile, "log file")
    if kwargs["max_interval"] is not None and kwargs["max_interval"] < 1:
        raise click.BadParameter(f"--max-interval must be at least 1 second, got {kwargs['max_interval']}.")
    if detach:
        check_executable(executable)
        refuse_held_pidfile(pidfile)
        argv = ["-m", "celery", *without_detach(sys.argv[1:])]
        sys.exit(detach_(sys.executable, argv, logfile, pidfile, uid, gid, umask, app=app, executable=executable))
    warn_of_options_without(ctx, "--detach", "executable")
    become(uid, gid, umask, pidfile)
    if kwargs["scheduler"] == DEFAULTS["beat_scheduler"] and not is_shelf(kwargs["schedule"]):
        check_writable(kwargs["schedule"], "schedule file")
    app.Beat(logfile=logfile, pidfile=pidfile, no_color=ctx.obj.no_color, quiet=ctx.obj.quiet, **kwargs).run()

"""``celery worker``: start a worker."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click
from click import ParamType
from click.types import StringParamType

from celery import concurrency
from celery.app import backends
from celery.bin.base import (
    COMMA_SEPARATED_LIST,
    CeleryDaemonCommand,
    CeleryOption,
    handle_preload_options,
    log_level_option,
    or_setting,
)
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
from celery.platforms import EX_FAILURE, EX_OK, detached
from celery.utils.log import get_logger
from celery.utils.nodenames import default_nodename, host_format, node_format

logger = get_logger(__name__)


class CeleryBeat(ParamType):
    """The flag for an embedded beat."""

    name = "beat"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if ctx.obj.app.IS_WINDOWS and value:
            self.fail("-B does not work on Windows.  Run celery beat as a separate service.", param, ctx)
        return value


class WorkersPool(click.Choice):
    """The name of a pool."""

    name = "pool"

    def __init__(self) -> None:
        super().__init__(concurrency.get_available_pool_names())

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        # -P eventlet and -P gevent were acted upon before anything was imported; here it is a name like others.
        if isinstance(value, str) and (":" in value or "." in value):
            try:
                return concurrency.get_implementation(value)
            except (ImportError, AttributeError, ValueError) as exc:
                self.fail(f"there is no pool {value} ({exc}).", param, ctx)
        return super().convert(value, param, ctx)


class Hostname(StringParamType):
    """A node name, with ``%h``, ``%n`` and ``%d`` for this host's name."""

    name = "hostname"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return host_format(default_nodename(value))


class Autoscale(ParamType):
    """``MAX,MIN``; one number alone is the maximum, with a minimum of 0."""

    name = "<min workers>, <max workers>"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(value)
        parts = str(value).split(",")
        try:
            numbers = [int(part) for part in parts]
        except ValueError:
            numbers = []
        if not 1 <= len(numbers) <= 2:
            self.fail(f"--autoscale wants MAX,MIN as numbers, got `{value}`.", param, ctx)
        most, least = numbers[0], numbers[1] if len(numbers) == 2 else 0
        if most < 1 or least < 0:
            self.fail(f"--autoscale wants a MAX of at least 1 and a MIN of at least 0, got `{value}`.", param, ctx)
        return max(most, least), min(most, least)


CELERY_BEAT = CeleryBeat()
WORKERS_POOL = WorkersPool()
HOSTNAME = Hostname()
AUTOSCALE = Autoscale()

C_FAKEFORK = os.environ.get("C_FAKEFORK")


def detach(
    path: str,
    argv: list[str],
    logfile: str | None = None,
    pidfile: str | None = None,
    uid: Any = None,
    gid: Any = None,
    umask: Any = None,
    workdir: str | None = None,
    fake: bool = False,
    app: Any = None,
    executable: str | None = None,
    hostname: str | None = None,
) -> int:
    """Run ``argv`` by the program ``path`` in the background; returns the exit status of the process in front."""
    hostname = default_nodename(hostname)
    logfile = node_format(logfile, hostname) if logfile else None
    pidfile = node_format(pidfile, hostname) if pidfile else None
    fake = bool(C_FAKEFORK) or fake
    with detached(logfile, pidfile, uid, gid, umask, workdir, fake, after_forkers=False):
        program = executable or path
        try:
            os.execv(program, [program, *argv])
        except OSError as exc:
            if app is None:
                from celery import current_app as app
            app.log.setup_logging_subsystem("ERROR", logfile, hostname=hostname)
            logger.critical("Can't exec %r: %s", " ".join([program, *argv]), exc, exc_info=True)
    return EX_FAILURE


def _slot_count(ctx: click.Context, param: Any, value: Any) -> Any:
    """Return the concurrency, a whole number of at least 1, or ``auto``."""
    if value is None or str(value).lower() == "auto":
        return value
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise click.BadParameter(f"--concurrency must be >= 1, or `auto`; got `{value}`.", ctx, param)
    return number


def _not_negative(ctx: click.Context, param: Any, value: Any) -> Any:
    if value is not None and value < 0:
        raise click.BadParameter(f"must not be negative, got {value}.", ctx, param)
    return value


def _queue_names(ctx: click.Context, param: Any, value: Any) -> Any:
    """Return the queue names; a name with a space is a slip of the separator."""
    for name in value or ():
        if not name or any(character.isspace() or character == ";" for character in name):
            reason = "has a space" if " " in name else "is no name of a queue"
            raise click.BadParameter(f"Queue name `{name}` {reason}; separate queues by commas.", ctx, param)
    return value


@click.command(cls=CeleryDaemonCommand, context_settings={"allow_extra_args": True}, short_help="Start a worker.")
@click.option(
    "-n",
    "--hostname",
    default=host_format(default_nodename(None)),
    cls=CeleryOption,
    type=HOSTNAME,
    help_group="Worker Options",
    help="Name of this node; %h is the host name, %n its first part, %d the rest.",
)
@click.option(
    "-D",
    "--detach",
    cls=CeleryOption,
    is_flag=True,
    default=False,
    help_group="Worker Options",
    help="Run in the background.",
)
@click.option(
    "-S",
    "--statedb",
    cls=CeleryOption,
    type=click.Path(),
    callback=or_setting("worker_state_db"),
    help_group="Worker Options",
    help="File that keeps revoked tasks from one start to the next.",
)
@log_level_option("Worker Options")
@click.option(
    "-O",
    "--optimization",
    default="default",
    cls=CeleryOption,
    type=click.Choice(("default", "fair")),
    help_group="Worker Options",
    help="Both give a task to a process that is free; `fair` never gives a busy one a second.",
)
@click.option(
    "--prefetch-multiplier",
    type=int,
    metavar="<prefetch multiplier>",
    callback=lambda ctx, param, value: (
        ctx.obj.app.conf.worker_prefetch_multiplier if value is None else _not_negative(ctx, param, value)
    ),
    cls=CeleryOption,
    help_group="Worker Options",
    help="Messages taken in advance for each slot.",
)
@click.option(
    "--disable-prefetch",
    is_flag=True,
    default=None,
    callback=lambda ctx, _, value: ctx.obj.app.conf.worker_disable_prefetch if value is None else value,
    cls=CeleryOption,
    help_group="Worker Options",
    help="Take a message only for a slot that is free (Redis).",
)
@click.option(
    "-c",
    "--concurrency",
    type=str,
    metavar="<concurrency>",
    callback=lambda ctx, param, value: _slot_count(ctx, param, value) or ctx.obj.app.conf.worker_concurrency,
    cls=CeleryOption,
    help_group="Pool Options",
    help="How many tasks run at once; `auto` for what the machine, or its container, allows.",
)
@click.option(
    "-P",
    "--pool",
    default="prefork",
    type=WORKERS_POOL,
    cls=CeleryOption,
    help_group="Pool Options",
    help="What runs the tasks.",
)
@click.option(
    "-E",
    "--task-events",
    "--events",
    is_flag=True,
    default=None,
    cls=CeleryOption,
    help_group="Pool Options",
    help="Send events about tasks, for monitors.",
)
@click.option(
    "--time-limit",
    type=float,
    callback=_not_negative,
    cls=CeleryOption,
    help_group="Pool Options",
    help="Seconds after which a task is killed.",
)
@click.option(
    "--soft-time-limit",
    type=float,
    callback=_not_negative,
    cls=CeleryOption,
    help_group="Pool Options",
    help="Seconds after which SoftTimeLimitExceeded is raised in a task.",
)
@click.option(
    "--max-tasks-per-child",
    type=int,
    callback=_not_negative,
    cls=CeleryOption,
    help_group="Pool Options",
    help="Tasks after which a process is replaced.",
)
@click.option(
    "--pool-start-method",
    type=click.Choice(("fork", "spawn")),
    cls=CeleryOption,
    help_group="Pool Options",
    help="How processes of the prefork pool are started.",
)
@click.option(
    "--max-memory-per-child",
    type=int,
    callback=_not_negative,
    cls=CeleryOption,
    help_group="Pool Options",
    help="Resident memory, in KiB, above which a process is replaced after its task.",
)
@click.option(
    "--purge",
    "--discard",
    is_flag=True,
    cls=CeleryOption,
    help_group="Queue Options",
    help="Delete all waiting messages first.",
)
@click.option(
    "--queues",
    "-Q",
    type=COMMA_SEPARATED_LIST,
    callback=_queue_names,
    cls=CeleryOption,
    help_group="Queue Options",
    help="Queues to consume, by commas.",
)
@click.option(
    "--exclude-queues",
    "-X",
    type=COMMA_SEPARATED_LIST,
    callback=_queue_names,
    cls=CeleryOption,
    help_group="Queue Options",
    help="Queues to leave out, by commas.",
)
@click.option(
    "--include",
    "-I",
    type=COMMA_SEPARATED_LIST,
    cls=CeleryOption,
    help_group="Queue Options",
    help="Modules to import, by commas.",
)
@click.option(
    "--without-gossip",
    is_flag=True,
    cls=CeleryOption,
    help_group="Features",
    help="Do not listen to other workers' events.",
)
@click.option(
    "--without-mingle",
    is_flag=True,
    cls=CeleryOption,
    help_group="Features",
    help="Do not greet other workers at the start.",
)
@click.option(
    "--without-heartbeat",
    is_flag=True,
    cls=CeleryOption,
    help_group="Features",
    help="Do not send heartbeat events.",
)
@click.option(
    "--heartbeat-interval",
    type=int,
    callback=_not_negative,
    cls=CeleryOption,
    help_group="Features",
    help="Seconds between heartbeat events.",
)
@click.option(
    "--broker-timeout",
    type=float,
    callback=_not_negative,
    cls=CeleryOption,
    help_group="Features",
    help="Seconds after which a broker that does not answer at the start ends the worker.",
)
@click.option(
    "--autoscale",
    type=AUTOSCALE,
    cls=CeleryOption,
    help_group="Features",
    help="Most and fewest slots, as MAX,MIN; the pool grows and shrinks with the load.",
)
@click.option(
    "-B",
    "--beat",
    type=CELERY_BEAT,
    cls=CeleryOption,
    is_flag=True,
    help_group="Embedded Beat Options",
    help="Run beat inside of this worker.",
)
@click.option(
    "-s",
    "--schedule-filename",
    "--schedule",
    type=click.Path(),
    callback=or_setting("beat_schedule_filename"),
    cls=CeleryOption,
    help_group="Embedded Beat Options",
    help="File in which beat keeps what it has sent.",
)
@click.option("--scheduler", cls=CeleryOption, help_group="Embedded Beat Options", help="Scheduler class of beat.")
@click.pass_context
@handle_preload_options
def worker(
    ctx: click.Context,
    hostname: str = "",  # the option has a default
    pool_cls: Any = None,
    app: Any = None,
    uid: Any = None,
    gid: Any = None,
    loglevel: Any = None,
    logfile: str | None = None,
    pidfile: str | None = None,
    statedb: str | None = None,
    **kwargs: Any,
) -> None:
    """Start a worker.

    \b
    celery -A proj worker -l INFO
    celery -A proj worker -Q hipri,lopri -c 4
    celery -A proj worker --autoscale=10,2
    """
    app = ctx.obj.app
    read_settings(app, ctx.args, "worker")
    _refuse_contradictions(kwargs)
    app.conf.validate()
    check_identity(uid, gid)
    umask = parse_umask(kwargs.pop("umask", None))
    executable = kwargs.pop("executable", None)
    if kwargs.pop("detach", False):
        _go_to_background(ctx, hostname, logfile, pidfile, uid, gid, umask, executable)
    warn_of_options_without(ctx, "--detach", "executable")
    if not kwargs.get("beat"):
        warn_of_options_without(ctx, "--beat", "schedule_filename", "scheduler")
    become(uid, gid, umask, node_format(pidfile, hostname) if pidfile else None)
    _check_files(hostname, logfile, statedb)
    running = app.Worker(
        hostname=hostname,
        pool_cls=pool_cls or kwargs.pop("pool"),
        loglevel=loglevel,
        logfile=logfile,
        pidfile=node_format(pidfile, hostname) if pidfile else None,
        statedb=node_format(statedb, hostname) if statedb else None,
        no_color=ctx.obj.no_color,
        quiet=ctx.obj.quiet,
        **kwargs,
    )
    if app.conf.result_backend:  # not sooner: a store of Django's needs the project that the worker has set up now
        backends.by_url(app.conf.result_backend, app.loader)
    running.start()
    ctx.exit(running.exitcode or EX_OK)


def _check_files(hostname: str, logfile: str | None, statedb: str | None = None) -> None:
    for path, what in ((logfile, "log file"), (statedb, "state file")):
        if isinstance(path, str) and path:
            check_writable(node_format(path, hostname, i="0", I=""), what)


def _go_to_background(
    ctx: click.Context,
    hostname: str,
    logfile: str | None,
    pidfile: str | None,
    uid: Any,
    gid: Any,
    umask: int | None,
    executable: str | None,
) -> NoReturn:
    """Start this command again as a daemon; whatever can be refused is refused here, before it is out of sight."""
    check_executable(executable)
    _check_files(hostname, logfile)
    refuse_held_pidfile(node_format(pidfile, hostname) if pidfile else None)
    os.environ.pop("CELERY_WORKER_DETACH", None)  # the daemon is to stay where it is
    argv = ["-m", "celery", *without_detach(sys.argv[1:])]
    sys.exit(
        detach(
            sys.executable,
            argv,
            logfile=logfile,
            pidfile=pidfile,
            uid=uid,
            gid=gid,
            umask=umask,
            app=ctx.obj.app,
            executable=executable,
            hostname=hostname,
        )
    )


def _refuse_contradictions(options: dict[str, Any]) -> None:
    """Refuse options that cannot both be meant."""
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    if soft and hard and soft >= hard:
        raise click.UsageError(f"--soft-time-limit ({soft:g}) must be below --time-limit ({hard:g}).")

"""The program ``celery beat``: log set-up, banner, signals, pidfile around the service."""

from __future__ import annotations

import socket
import sys
from datetime import datetime
from typing import Any

from celery import VERSION_BANNER, platforms
from celery import beat as beat_
from celery.platforms.titles import strargv
from celery.utils.imports import qualname
from celery.utils.log import LOG_LEVELS, get_logger
from celery.utils.time import humanize_seconds

__all__ = ("Beat",)

logger = get_logger("celery.beat")

STARTUP_INFO_FMT = """
LocalTime -> {timestamp}
Configuration ->
    . broker -> {conninfo}
    . loader -> {loader}
    . scheduler -> {scheduler}
{scheduler_info}
    . logfile -> {logfile}@%{loglevel}
    . maxinterval -> {hmax_interval} ({max_interval}s)
{remote_control}""".strip()


class Beat:
    """Beat as a program of its own."""

    Service = beat_.Service
    app: Any = None

    def __init__(
        self,
        max_interval: float | None = None,
        app: Any = None,
        socket_timeout: float = 30,
        pidfile: str | None = None,
        no_color: bool | None = None,
        loglevel: Any = "WARN",
        logfile: str | None = None,
        schedule: str | None = None,
        scheduler: Any = None,
        scheduler_cls: Any = None,
        redirect_stdouts: bool | None = None,
        redirect_stdouts_level: Any = None,
        quiet: bool = False,
        remote_control: bool | None = None,
        hostname: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app = app or self.app
        either = app.either
        self.loglevel = LOG_LEVELS[loglevel.upper()] if isinstance(loglevel, str) else loglevel
        self.logfile = logfile
        self.schedule = either("beat_schedule_filename", schedule)
        self.scheduler_cls = either("beat_scheduler", scheduler, scheduler_cls)
        self.redirect_stdouts = either("worker_redirect_stdouts", redirect_stdouts)
        self.redirect_stdouts_level = either("worker_redirect_stdouts_level", redirect_stdouts_level)
        self.quiet = quiet
        self.remote_control = remote_control
        self.hostname = hostname
        self.max_interval = max_interval
        self.socket_timeout = socket_timeout
        self.no_color = no_color
        self.colored = app.log.colored(logfile, enabled=not no_color if no_color is not None else no_color)
        self.pidfile = pidfile

    def run(self) -> None:
        """Send what is due until a signal says otherwise."""
        if not self.quiet:
            print(str(self.colored.cyan(f"celery beat v{VERSION_BANNER} is starting.")), flush=True)
        self.init_loader()
        self.set_process_title()
        self.start_scheduler()

    def setup_logging(self, colorize: bool | None = None) -> None:
        if colorize is None and self.no_color is not None:
            colorize = not self.no_color
        is_custom = self.app.log.setup(self.loglevel, self.logfile, redirect_stdouts=False, colorize=colorize)
        if not is_custom and self.redirect_stdouts:
            self.app.log.redirect_stdouts(self.redirect_stdouts_level)

    def start_scheduler(self) -> None:
        if self.pidfile:
            platforms.create_pidlock(self.pidfile)
        service = self.Service(
            app=self.app,
            max_interval=self.max_interval,
            scheduler_cls=self.scheduler_cls,
            schedule_filename=self.schedule,
            remote_control=self.remote_control,
            hostname=self.hostname,
        )
        if not self.quiet:
            print(self.banner(service), flush=True)
        self.setup_logging()
        if self.socket_timeout:
            logger.debug("Setting default socket timeout to %r", self.socket_timeout)
            socket.setdefaulttimeout(self.socket_timeout)
        self.install_sync_handler(service)
        service.start()

    def banner(self, service: Any) -> str:
        paint = self.colored
        line = paint.blue(
            "__    ", paint.magenta("-"), paint.blue("    ... __   "), paint.magenta("-"), paint.blue("        _\n")
        )
        return f"{line}{paint.reset(self.startup_info(service))}"

    def init_loader(self) -> None:
        """Import what the app needs, so that entries and tasks are known; on_after_configure has been sent then."""
        self.app.loader.init_worker()
        self.app.finalize()

    def startup_info(self, service: Any) -> str:
        """Return the banner's lines: broker, scheduler, store, interval.  No schedule is opened for it."""
        scheduler = service.get_scheduler(lazy=True)
        return STARTUP_INFO_FMT.format(
            conninfo=self.app.connection().as_uri(),
            timestamp=datetime.now().replace(microsecond=0),
            logfile=self.logfile or "[stderr]",
            loglevel=LOG_LEVELS[self.loglevel],
            loader=qualname(self.app.loader),
            scheduler=qualname(scheduler),
            scheduler_info=scheduler.info,
            hmax_interval=humanize_seconds(scheduler.max_interval),
            max_interval=scheduler.max_interval,
            remote_control=self._remote_control_info(service),
        )

    def _remote_control_info(self, service: Any) -> str:
        return f"    . remote control -> {beat_.beat_nodename(service.hostname)}" if service.remote_control else ""

    def set_process_title(self) -> None:
        platforms.set_process_title("celery beat", info=strargv(sys.argv))

    def install_sync_handler(self, service: Any) -> None:
        """Have TERM and INT end the service when it has sent what it is sending; a second one ends it at once."""

        def stop(signum: int, frame: Any) -> None:
            if service._is_stopping:
                raise SystemExit(0)
            service.ask_to_stop()

        platforms.signals.update(SIGTERM=stop, SIGINT=stop)

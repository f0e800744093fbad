"""The program ``celery worker``: a worker that owns its process.

It adds to the controller what only a program may do: log set-up, the banner, signal handlers, process titles.
Handlers only set a flag (and say so); the loop sees it and stops in the main thread.
"""

from __future__ import annotations

import logging
import os
import platform as os_platform
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from billiard.common import REMAP_SIGTERM
from billiard.process import current_process
from kombu.utils.encoding import safe_str

from celery import VERSION_BANNER, platforms, signals
from celery.loaders.app import AppLoader
from celery.platforms import EX_FAILURE, EX_OK
from celery.platforms.titles import strargv
from celery.platforms.users import check_privileges
from celery.utils.debug import cry
from celery.utils.imports import qualname
from celery.utils.log import get_logger, in_sighandler, set_in_sighandler
from celery.utils.text import pluralize
from celery.worker import WorkController, state

__all__ = ("Worker",)

logger = get_logger(__name__)

IS_PYPY = hasattr(sys, "pypy_version_info")

#: A round root with leaves: what celeriac looks like from the side.
ARTWORK = (
    r"   \ | /    ",
    r"  --\|/--   ",
    r"   .-v-.    ",
    r"  /     \   ",
    r" |  o  . |  ",
    r" | .  o  |  ",
    r"  \  .  /   ",
    r"   '~,~'    ",
    r"     '      ",
)
MARGIN = " " * len(ARTWORK[0])


def safe_say(msg: str, f: Any = sys.__stderr__) -> None:
    """Write a line from within a signal handler: no lock, no logging.

    Where nobody can read it any more (a pipe whose reader has gone), the signal still has its effect.
    """
    if f is not None and getattr(f, "fileno", None) and f.fileno() is not None:
        with suppress(OSError):
            os.write(f.fileno(), f"\n{msg}\n".encode())


class Worker(WorkController):
    """A worker as a program: what `WorkController` is, with its own process."""

    def on_before_init(self, quiet: bool = False, **kwargs: Any) -> None:
        self.quiet = quiet
        from celery.app import trace

        trace.setup_worker_optimizations(self.app, self.hostname)
        # Projects adapt the configuration to the node here, before anything has read it.
        signals.celeryd_init.send(sender=self.hostname, instance=self, conf=self.app.conf, options=kwargs)
        check_privileges(self.app.conf.accept_content)

    def on_after_init(
        self,
        purge: bool = False,
        no_color: bool | None = None,
        redirect_stdouts: bool | None = None,
        redirect_stdouts_level: str | int | None = None,
        **kwargs: Any,
    ) -> None:
        self.redirect_stdouts = self.app.either("worker_redirect_stdouts", redirect_stdouts)
        self.redirect_stdouts_level = self.app.either("worker_redirect_stdouts_level", redirect_stdouts_level)
        self.purge = purge
        self.no_color = no_color
        self._isatty = platforms.isatty(sys.stdout)
        self.colored = self.app.log.colored(self.logfile, enabled=not no_color if no_color is not None else no_color)

    def on_init_blueprint(self) -> None:
        self._custom_logging = self.setup_logging()
        # Children set up their logging like this process, also those that are started by spawning.
        os.environ["CELERY_LOG_LEVEL"] = str(self.loglevel)
        os.environ["CELERY_LOG_FILE"] = self.logfile or ""

    def on_start(self) -> None:
        super().on_start()
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=self.app.conf)
        if self.purge:
            self.purge_messages()
        if not self.quiet:
            self.emit_banner()
        self.set_process_status("-active-")
        self.install_platform_tweaks(self)
        if not self._custom_logging and self.redirect_stdouts:
            self.app.log.redirect_stdouts(self.redirect_stdouts_level)

    def emit_banner(self) -> None:
        """Print what this worker is: on a terminal in colour, and with a drawing where that is wide enough."""
        info = self.startup_info()
        columns = shutil.get_terminal_size().columns
        if self._isatty and max(map(len, info.splitlines())) > columns:
            info = self.startup_info(artlines=False)
        text = f" \n{info}{self.extra_info() or ''}"
        shown = str(self.colored.cyan(text)) if self._isatty else text
        print(safe_str(shown), file=sys.__stdout__, flush=True)

    def on_stopped(self) -> None:
        super().on_stopped()
        self.impatience.watch()  # what is still to be settled at exit

    def on_consumer_ready(self, consumer: Any) -> None:
        signals.worker_ready.send(sender=consumer)
        logger.info("%s ready.", safe_str(self.hostname))

    def setup_logging(self, colorize: bool | None = None) -> bool:
        """Set up logging; returns true if a receiver of the signal ``setup_logging`` did it in our place."""
        if colorize is None and self.no_color is not None:
            colorize = not self.no_color
        return bool(
            self.app.log.setup(
                self.loglevel, self.logfile, redirect_stdouts=False, colorize=colorize, hostname=self.hostname
            )
        )

    def purge_messages(self) -> None:
        """Delete all messages that wait in the queues of this worker."""
        with self.app.connection_for_write() as connection:
            count = self.app.control.purge(connection=connection)
            if count:
                print(f"purge: Erased {count} {pluralize(count, 'message')} from the queue.\n", flush=True)

    def tasklist(self, include_builtins: bool = True, sep: str = "\n", int_: str = "celery.") -> str:
        """Return the names of the registered tasks as text."""
        names = sorted(self.app.tasks)
        return sep.join(f"  . {name}" for name in names if include_builtins or not name.startswith(int_))

    def extra_info(self) -> str | None:
        """Return the list of tasks, for those who start at level INFO or below."""
        if self.loglevel is not None and self.loglevel <= logging.INFO:
            return f"\n[tasks]\n{self.tasklist(include_builtins=self.loglevel <= logging.DEBUG)}\n"
        return None

    def startup_info(self, artlines: bool = True) -> str:
        """Return the banner: name, system, configuration and queues."""
        lines = [*self._banner_lines(), *self.app.amqp.queues.format(indent=0, indent_first=False).splitlines()]
        if artlines:
            drawn = [*ARTWORK, *[MARGIN] * max(0, len(lines) - len(ARTWORK))]
            lines += [""] * (len(drawn) - len(lines))
            lines = [f"{art}{line}" for art, line in zip(drawn, lines)]  # noqa: B905 - of one length by now
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _banner_lines(self) -> Iterator[str]:
        app = self.app
        yield f"{safe_str(self.hostname)} v{VERSION_BANNER}"
        yield f"{os_platform.platform()} {datetime.now():%Y-%m-%d %H:%M:%S}"
        yield ""
        yield "[config]"
        yield f".> app:         {app.main or '__main__'}:{id(app):#x}{self._loader_note()}"
        yield f".> transport:   {app.connection().as_uri()}"
        yield f".> results:     {app.backend.as_uri()}"
        yield f".> concurrency: {self._concurrency_note()}"
        on_off = "ON" if self.task_events else "OFF (enable -E to monitor tasks in this worker)"
        yield f".> task events: {on_off}"
        yield ""
        yield "[queues]"

    def _loader_note(self) -> str:
        loader = qualname(self.app.loader)
        if isinstance(self.app.loader, AppLoader) and type(self.app.loader) is AppLoader:
            return ""
        return f" ({loader.removeprefix('celery.loaders.')})"

    def _concurrency_note(self) -> str:
        pool = self.pool_cls if isinstance(self.pool_cls, str) else self.pool_cls.__module__
        slots = str(self.concurrency)
        if self.autoscale:
            most, least = self.autoscale
            slots = f"{{min={least}, max={most}}}"
        return f"{slots} ({pool.rpartition('.')[2]})"

    def install_platform_tweaks(self, worker: Any) -> None:
        """Install the signal handlers."""
        if self.app.IS_macOS:
            self.macOS_proxy_detection_workaround()
        if not self._isatty:
            # On a terminal, HUP means that it is gone.
            install_worker_restart_handler(worker)
        if REMAP_SIGTERM == "SIGQUIT":
            install_worker_term_hard_handler(worker, sig="SIGTERM")
        else:
            install_worker_term_handler(worker)
        install_worker_int_handler(worker)
        install_worker_term_hard_handler(worker)
        install_cry_handler()
        install_rdb_handler()

    def macOS_proxy_detection_workaround(self) -> None:
        """Keep libraries from asking the system's proxy settings in a forked child, which crashes there."""
        os.environ.setdefault("celery_dummy_proxy", "set_by_celeryd")

    def set_process_status(self, info: str) -> Any:
        return platforms.set_mp_process_title("celeryd", info=f"{info} ({strargv(sys.argv)})", hostname=self.hostname)


# -- signals ----------------------------------------------------------------------------------------------------------


def _handler(
    worker: Any,
    sig: str,
    how: str,
    flag: str,
    exitcode: int,
    callback: Callable[[Any], None] | None,
) -> None:
    """Install a handler for ``sig`` that asks the loop to end, ``how`` being a word for the log."""

    def on_signal(*args: Any) -> None:
        set_in_sighandler(True)
        try:
            if current_process()._name == "MainProcess":
                if callback:
                    callback(worker)
                safe_say(f"worker: {how} shutdown (MainProcess)", sys.__stdout__)
                signals.worker_shutting_down.send(sender=worker.hostname, sig=sig, how=how, exitcode=exitcode)
            setattr(state, flag, exitcode)
            worker.impatience.watch()
        finally:
            set_in_sighandler(False)

    platforms.signals[sig] = on_signal


def install_worker_term_handler(worker: Any, sig: str = "SIGTERM") -> None:
    """TERM: warm shutdown, exit status 0."""
    _handler(worker, sig, "Warm", "should_stop", EX_OK, None)


def install_worker_int_handler(worker: Any, sig: str = "SIGINT") -> None:
    """INT: warm shutdown, exit status 1 as of any program that is interrupted; a second one is a cold one."""

    def expect_second(worker: Any) -> None:
        again = "worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!"
        safe_say(again, sys.__stdout__)
        install_worker_term_hard_handler(
            worker, sig=sig, again="Hitting Ctrl+C again will terminate all running tasks!"
        )

    _handler(worker, sig, "Warm", "should_stop", EX_FAILURE, expect_second)


def install_worker_term_hard_handler(worker: Any, sig: str = "SIGQUIT", again: str | None = None) -> None:
    """QUIT: cold shutdown, exit status 1; a second one ends the process where it stands (``again`` says so).

    With a soft shutdown before it, the second one cuts that short, and the third ends the process.
    """

    def end_here(*args: Any) -> None:
        os._exit(EX_FAILURE)

    def cut_short(*args: Any) -> None:
        safe_say("worker: Waiting no longer for running tasks", sys.__stdout__)
        platforms.signals[sig] = end_here
        worker.cut_soft_shutdown()

    def expect_last(worker: Any) -> None:
        if again:
            safe_say(f"worker: {again}", sys.__stdout__)
        platforms.signals[sig] = cut_short if worker.app.conf.worker_soft_shutdown_timeout else end_here

    _handler(worker, sig, "Cold", "should_terminate", EX_FAILURE, expect_last)


def install_worker_restart_handler(worker: Any, sig: str = "SIGHUP") -> None:
    """HUP: warm shutdown, and the same command again in its place."""

    def restart(*args: Any) -> None:
        set_in_sighandler(True)
        try:
            safe_say(f"Restarting celery worker ({' '.join(sys.argv)})", sys.__stdout__)
            import atexit

            atexit.register(_start_again)
            state.should_stop = EX_OK
        finally:
            set_in_sighandler(False)

    platforms.signals[sig] = restart


def _start_again() -> None:
    command = list(sys.orig_argv)
    os.execv(sys.executable, [sys.executable, *command[1:]])


def install_cry_handler(sig: str = "SIGUSR1") -> None:
    """USR1: log where every thread is."""
    if IS_PYPY:
        return

    def dump(*args: Any) -> None:
        with in_sighandler():
            safe_say(cry())

    platforms.signals[sig] = dump


def install_rdb_handler(envvar: str = "CELERY_RDBSIG", sig: str = "SIGUSR2") -> None:
    """USR2: open the remote debugger, if the environment allows it by ``CELERY_RDBSIG``."""
    if not os.environ.get(envvar):
        return

    def debug(*args: Any) -> None:
        with in_sighandler():
            from celery.contrib.rdb import _frame, set_trace

            frame = args[1] if len(args) > 1 else _frame()
            set_trace(frame)

    platforms.signals[sig] = debug

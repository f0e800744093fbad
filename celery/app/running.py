"""The programs of an app, each from the room above that has it; imported when somebody asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from celery.app.binding import kept

__all__ = ("Running",)


class Running:
    """Part of ``Celery``: worker, beat, and the command line, bound to this app."""

    subclass_with_self: Callable[..., Any]

    @kept
    def Worker(self) -> Any:
        """The worker program: banner, signals, logs."""
        return self.subclass_with_self("celery.apps.worker:Worker")

    @kept
    def WorkController(self) -> Any:
        """The worker without a program around it."""
        return self.subclass_with_self("celery.worker:WorkController")

    @kept
    def Beat(self) -> Any:
        """The scheduler program."""
        return self.subclass_with_self("celery.apps.beat:Beat")

    def worker_main(self, argv: Iterable[str] | None = None) -> Any:
        """Run ``celery worker`` with ``argv`` (default: the arguments of this process)."""
        words = list(sys.argv[1:] if argv is None else argv)
        if "worker" not in words:
            raise ValueError("worker_main() needs `worker` among its arguments; for other commands there is start().")
        return self.start(argv=words)

    def start(self, argv: Iterable[str] | None = None) -> Any:
        """Run ``celery`` with ``argv`` (default: the arguments of this process) for this app; return its exit status.

        Upstream: the default has the name of the program in it, and so finds no command.
        """
        from click import UNPROCESSED
        from click.exceptions import Exit

        from celery.bin.celery import celery

        option = next(option for option in celery.params if option.name == "app")
        before = option.default, option.type
        option.default, option.type = self, UNPROCESSED
        try:
            return celery.main(args=list(sys.argv[1:] if argv is None else argv), standalone_mode=False)
        except Exit as exit_:
            return exit_.exit_code
        finally:
            option.default, option.type = before

    def bugreport(self) -> str:
        """Return what to paste into a bug report."""
        from celery.app.utils import bugreport

        return bugreport(self)

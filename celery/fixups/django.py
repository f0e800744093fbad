"""Glue to Django: projects are set up before tasks are imported, and connections do not outlive what they are good for.

It acts when ``DJANGO_SETTINGS_MODULE`` is set.  Nothing of Django is imported before the app needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from warnings import warn

from celery import _state, signals
from celery.exceptions import FixupWarning

__all__ = ("DjangoFixup", "fixup")

#: set by any text, the checks of the project are not run when a worker starts
SKIP_CHECKS = "CELERY_SKIP_CHECKS"


def fixup(app: Any, env: str = "DJANGO_SETTINGS_MODULE") -> DjangoFixup | None:
    """Prepare ``app`` for the Django project that ``env`` names; return nothing where there is none."""
    settings_module = os.environ.get(env)
    if not settings_module or "django" in str(app.loader_cls).lower():
        return None
    if find_spec("django") is None:
        warn(FixupWarning(f"{env} is set to {settings_module}, but Django is not installed."), stacklevel=3)
        return None
    return DjangoFixup(app).install()


class DjangoFixup:
    """What every process with the app needs, a client or a worker."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def install(self) -> DjangoFixup:
        """Connect to what an app does later; ``django.setup()`` is left to the project or the worker."""
        if (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)
        if _state.default_app is None:  # a web server's threads, which made no app, must find this one
            self.app.set_default()
        if not self.app._custom_task_cls_used:
            self.app.task_cls = "celery.contrib.django.task:DjangoTask"
        signals.import_modules.connect(self.on_import_modules, sender=self.app)
        signals.worker_init.connect(self.on_worker_init)
        return self

    @cached_property
    def worker_fixup(self) -> DjangoWorkerFixup:
        return DjangoWorkerFixup(self.app)

    def on_import_modules(self, **kwargs: Any) -> None:
        """Set the project up: its models must be there before its tasks are imported."""
        self.worker_fixup.validate_models()
        self.app.loader.now = self.now

    def on_worker_init(self, **kwargs: Any) -> None:
        self.worker_fixup.worker = kwargs.get("sender")
        self.worker_fixup.install()

    def autodiscover_tasks(self) -> list[str]:
        """Return the packages of ``INSTALLED_APPS``."""
        from django.apps import apps

        return [config.name for config in apps.get_app_configs()]

    def now(self, utc: bool = False) -> datetime:
        """Return the time as the project keeps it, or in UTC."""
        from django.utils import timezone as project

        return datetime.now(timezone.utc) if utc else project.now()


class DjangoWorkerFixup:
    """What a worker needs: connections to databases and caches, closed in time and never shared by processes."""

    worker: Any = None

    def __init__(self, app: Any) -> None:
        from django import db

        self.app = app
        self.db_reuse_max = app.conf.get("CELERY_DB_REUSE_MAX")
        self.DatabaseError: type[Exception] = db.DatabaseError
        self.interface_errors: tuple[type[Exception], ...] = (db.InterfaceError,)
        self._tasks_on_connections = 0

    # -- setting up

    def django_setup(self) -> None:
        import_module("django").setup()

    def validate_models(self) -> None:
        """Set the project up and run its checks; what they find is told, and stops nobody."""
        self.django_setup()
        if os.environ.get(SKIP_CHECKS):
            return
        from django.core.checks import run_checks

        for problem in run_checks():
            if problem.is_serious() and not problem.is_silenced():
                text = f"The Django project has an error ({SKIP_CHECKS}=1 runs no checks): {problem}"
                warn(FixupWarning(text), stacklevel=2)  # it is too early for the log

    def install(self) -> DjangoWorkerFixup:
        """Connect to what a worker does, and let go of what was opened while it was set up."""
        self._close_all(force=True)
        self.close_cache()
        signals.task_prerun.connect(self.on_task_prerun)
        signals.task_postrun.connect(self.on_task_postrun)
        signals.worker_process_init.connect(self.on_worker_process_init)
        return self

    # -- a worker's life

    def on_worker_process_init(self, **kwargs: Any) -> None:
        """Let go of connections that the parent opened, without a word to the server: they are still the parent's."""
        for connection in self._connections():
            with suppress(Exception):
                _point_to_nowhere(connection.connection)
            with self._tolerating_lost_connections():
                connection.close()
        self.close_cache()

    def on_task_prerun(self, sender: Any, **kwargs: Any) -> None:
        if not getattr(sender.request, "is_eager", False):
            self.close_database()

    def on_task_postrun(self, sender: Any, **kwargs: Any) -> None:
        # an eager task runs in the transaction of its caller
        if not getattr(sender.request, "is_eager", False):
            self.close_database()
            self.close_cache()

    # -- letting go

    def close_database(self, **kwargs: Any) -> None:
        """Close connections that are broken or older than ``CONN_MAX_AGE``.

        With ``CELERY_DB_REUSE_MAX`` all are closed instead, after so many tasks.
        """
        if not self.db_reuse_max:
            self._close_all(force=False)
        elif self._tasks_on_connections >= self.db_reuse_max * 2:  # called before a task and after it
            self._tasks_on_connections = 0
            self._close_all(force=True)
        self._tasks_on_connections += 1

    def close_cache(self) -> None:
        from django.core.cache import close_caches

        close_caches()

    def _close_all(self, force: bool) -> None:
        for connection in self._connections():
            with self._tolerating_lost_connections():
                if force:
                    connection.close()
                elif not connection.in_atomic_block:
                    connection.close_if_unusable_or_obsolete()

    def _connections(self) -> list[Any]:
        """Return those of this thread that were used."""
        from django.db import connections

        return [c for c in connections.all(initialized_only=True) if c.connection is not None]

    @contextmanager
    def _tolerating_lost_connections(self) -> Iterator[None]:
        try:
            yield
        except self.interface_errors:
            pass  # closed already
        except self.DatabaseError as error:
            if not any(word in str(error) for word in ("closed", "not connected", "lost", "gone away")):
                raise


def _point_to_nowhere(connection: Any) -> None:
    """Make what is written to a driver's socket vanish, so that closing the connection does not end the parent's."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(nowhere, connection.fileno())
    finally:
        os.close(nowhere)

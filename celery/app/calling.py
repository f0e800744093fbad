"""How an app calls tasks: by name, as signatures, and by schedule."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from celery import _state
from celery.app import periodic
from celery.app.binding import kept

if TYPE_CHECKING:
    from celery.app.settings.view import Settings

__all__ = ("Calling",)

_UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET", "__bool__": lambda self: False})()


class Calling:
    """Part of ``Celery``: ``send_task``, ``signature``, periodic tasks, and which task runs."""

    conf: Settings
    configured: bool
    _conf: Settings | None
    _pending_periodic_tasks: deque[tuple[str, dict[str, Any], bool]]

    @property
    def current_task(self) -> Any:
        """The task that runs in this thread, or ``None``."""
        return _state.get_current_task()

    @property
    def current_worker_task(self) -> Any:
        """The task that a worker runs in this thread, even if it called another in place; or ``None``."""
        return _state.get_current_worker_task()

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        connection: Any = None,
        router: Any = None,
        result_cls: Any = None,
        expires: Any = _UNSET,
        publisher: Any = None,
        link: Any = None,
        link_error: Any = None,
        add_to_parent: bool = True,
        group_id: str | None = None,
        group_index: int | None = None,
        retries: int = 0,
        chord: Any = None,
        reply_to: str | None = None,
        time_limit: Any = _UNSET,
        soft_time_limit: Any = _UNSET,
        root_id: str | None = None,
        parent_id: str | None = None,
        route_name: str | None = None,
        shadow: str | None = None,
        chain: Any = None,
        task_type: Any = None,
        replaced_task_nesting: int = 0,
        **options: Any,
    ) -> Any:
        """Send a task by name and return a handle on its result; see ``celery.app.publishing.send_task``.

        That function takes the place of this one at the first call, which spares every later call a step.
        """
        from celery.app import publishing

        Calling.send_task = publishing.send_task  # type: ignore[method-assign, assignment]
        given = {key: value for key, value in locals().items() if key in _SEND_ARGUMENTS and value is not _UNSET}
        return publishing.send_task(self, **given, **options)  # type: ignore[arg-type]  # we are a Celery

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        """Return a signature that belongs to this app."""
        kwargs["app"] = self
        return self._canvas.signature(*args, **kwargs)

    @kept
    def _canvas(self) -> Any:
        from celery import canvas

        return canvas

    def add_periodic_task(
        self, schedule: Any, sig: Any, args: Any = (), kwargs: Any = (), name: str | None = None, **opts: Any
    ) -> str:
        """Have beat send ``sig`` by ``schedule`` (seconds, timedelta, crontab, ...); return the entry's name."""
        key, entry = periodic.entry_for(self, schedule, sig, args, kwargs, name, opts)
        if self.configured:
            periodic.add_entry(self.conf, key, entry, is_named=name is not None)
        else:
            self._pending_periodic_tasks.append((key, entry, name is not None))
        return key

    def _add_pending_periodic_tasks(self) -> None:
        while self._pending_periodic_tasks:
            key, entry, is_named = self._pending_periodic_tasks.popleft()
            periodic.add_entry(self._conf, key, entry, is_named)


_CODE = Calling.send_task.__code__
_SEND_ARGUMENTS = frozenset(_CODE.co_varnames[1 : _CODE.co_argcount])

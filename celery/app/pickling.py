"""How an app is pickled: as the arguments that make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.app.settings.view import Settings
    from celery.app.utils import AppPickler

__all__ = ("Pickling",)


class _Pickler:
    """``Celery.Pickler``, imported when somebody asks."""

    def __get__(self, obj: Any, owner: Any = None) -> type[AppPickler]:
        from celery.app.utils import AppPickler

        return AppPickler


class Pickling:
    """Part of ``Celery``: ``__reduce__``."""

    main: str | None
    fixups: Any
    loader_cls: Any
    backend_cls: Any
    amqp_cls: Any
    events_cls: Any
    log_cls: Any
    control_cls: Any
    task_cls: Any
    namespace: str | None
    configured: bool
    _conf: Settings | None
    _preconf: dict[str, Any]
    _config_source: Any
    _config_source_silent: bool

    Pickler: Any = _Pickler()

    def __reduce__(self) -> tuple[Any, ...]:
        from celery.app import utils

        if type(self).__reduce_args__ is not Pickling.__reduce_args__:
            return utils._unpickle_app, (type(self), self.Pickler, *self.__reduce_args__())
        return utils._unpickle_app_v2, (type(self), self.__reduce_keys__())

    def __reduce_keys__(self) -> dict[str, Any]:
        """Return the keyword arguments that make this app again; for subclasses to add to."""
        return {
            "main": self.main,
            "changes": self._changes(),
            "loader": self.loader_cls,
            "backend": self.backend_cls,
            "amqp": self.amqp_cls,
            "events": self.events_cls,
            "log": self.log_cls,
            "control": self.control_cls,
            "fixups": self.fixups,
            "config_source": self._config_source,
            "config_source_silent": self._config_source_silent,
            "task_cls": self.task_cls,
            "namespace": self.namespace,
        }

    def __reduce_args__(self) -> tuple[Any, ...]:
        """Return arguments for ``Pickler``.  Upstream: the older way, used if a subclass overrides this."""
        return (
            self.main,
            self._changes(),
            self.loader_cls,
            self.backend_cls,
            self.amqp_cls,
            self.events_cls,
            self.log_cls,
            self.control_cls,
            False,
            self._config_source,
            self._config_source_silent,
        )

    def _changes(self) -> Mapping[str, Any]:
        if self.configured and self._conf is not None:
            return dict(self._conf.changes)
        return dict(self._preconf)

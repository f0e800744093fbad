"""How an app comes to its configuration: the sources it was given, read when the first setting is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from celery.exceptions import ImproperlyConfigured
from celery.utils.dispatch import Signal

if TYPE_CHECKING:
    from celery.app.settings.view import Settings

__all__ = ("Configuring",)


class Configuring:
    """Part of ``Celery``: ``conf`` and where it comes from."""

    on_configure: Any
    on_after_configure: Any
    configured: bool
    namespace: str | None
    loader: Any
    _conf: Settings | None
    _conf_lock: Any
    _config_source: Any
    _config_source_silent: bool
    _preconf: dict[str, Any]
    _preconf_set_by_auto: set[str]
    _pending_defaults: list[Callable[[], Any]]
    _is_configuring: bool
    _add_pending_periodic_tasks: Callable[[], None]

    @property
    def conf(self) -> Settings:
        """The settings; loaded when the first one is read, so writing to them before costs nothing."""
        conf = self._conf
        if conf is None:
            return self._pending_conf()
        conf.refresh()
        return conf

    @conf.setter
    def conf(self, d: Any) -> None:
        from celery.app.settings.detect import detect_settings
        from celery.app.settings.view import Settings
        from celery.utils.collections import force_mapping

        self._conf = d if isinstance(d, Settings) else detect_settings(force_mapping(d))
        self.configured = True

    def _pending_conf(self) -> Settings:
        from celery.app.settings.pending import PendingConfiguration
        from celery.app.settings.view import Settings

        with self._conf_lock:
            if self._conf is None:
                pending = PendingConfiguration(self._preconf, self._finalize_pending_conf)
                self._conf = Settings(pending)
            return self._conf

    def _finalize_pending_conf(self) -> Settings:
        """Load the configuration into the object that ``conf`` gave out already."""
        with self._conf_lock:
            if not self.configured or self._conf is None:
                self._load_config()
            return self._conf  # type: ignore[return-value]  # just loaded

    def _load_config(self) -> Settings:
        from celery.app.settings.checks import warn_near_misses
        from celery.app.settings.detect import detect_settings

        if not self._is_configuring:
            # A handler that reads a setting comes here again, and then loads.
            self._is_configuring = True
            try:
                self._announce_configuring()
                if self.configured:
                    return self.conf
            finally:
                self._is_configuring = False
        if self._config_source:
            self.loader.config_from_object(self._config_source, silent=self._config_source_silent)
        found = detect_settings(
            self.prepare_config(self.loader.conf),
            self._preconf,
            ignore_keys=self._preconf_set_by_auto,
            prefix=self.namespace,
        )
        if self._conf is None:
            self._conf = found
        else:
            self._conf.swap_with(found)
        self.configured = True
        for defaults in self._pending_defaults:
            self._conf.add_defaults(defaults())
        self._pending_defaults.clear()
        self._add_pending_periodic_tasks()
        warn_near_misses(self._conf)
        self.on_after_configure.send(sender=self, source=self._conf)
        return self._conf

    def _announce_configuring(self) -> None:
        if isinstance(self.on_configure, Signal):
            self.on_configure.send(sender=self)
        else:  # a method, where a subclass has one
            self.on_configure()

    def prepare_config(self, c: Any) -> Any:
        """Return the user's configuration object ``c``, before it is used; for subclasses to change."""
        from celery.app.settings.checks import find_deprecated_settings

        return find_deprecated_settings(c)

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> Any:
        """Take the configuration from ``obj``: a module, class, mapping, or the name of one.

        With ``namespace="CELERY"`` a setting is called ``CELERY_BROKER_URL`` there.  It is read when the first
        setting is, or now if that was before (or with ``force``), and then returned.  ``silent`` lets a module
        be missing.
        """
        self._config_source = obj
        self._config_source_silent = silent
        self.namespace = namespace or self.namespace
        if not (force or self.configured):
            return None
        with self._conf_lock:
            self._conf = None
            self.configured = False
        if self.loader.config_from_object(obj, silent=silent):
            self._config_source = None if silent else obj
            return self.conf.finalize()
        return None

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> Any:
        """Take the configuration from the module that an environment variable names.

        Raises:
            ImproperlyConfigured: the variable is not set (``silent``: return ``False``).
        """
        module = os.environ.get(variable_name)
        if not module:
            if silent:
                return False
            raise ImproperlyConfigured(
                f"The environment variable {variable_name} is not set. It must name the module that holds the "
                f'configuration: {variable_name}="proj.celeryconfig".'
            )
        return self.config_from_object(module, silent=silent, force=force)

    def config_from_cmdline(self, argv: Sequence[str], namespace: str = "celery") -> None:
        """Take settings from words such as ``worker.concurrency=3``."""
        self.conf.update(self.loader.cmdline_config_parser(argv, namespace))

    def add_defaults(self, fun: Any) -> Any:
        """Put settings below those that were assigned: a mapping, or a function that returns one when it is needed."""
        defaults: Callable[[], Any] = fun if callable(fun) else lambda: fun
        if self.configured:
            return self.conf.add_defaults(defaults())
        self._pending_defaults.append(defaults)
        return None

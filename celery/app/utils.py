"""Tools around an app: finding it, describing it, pickling it.  Also the door to ``Settings``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from celery.app.settings.detect import detect_settings
from celery.app.settings.masking import HIDDEN_SETTINGS as HIDDEN_SETTINGS
from celery.app.settings.masking import censored
from celery.app.settings.view import Settings
from celery.utils.imports import import_from_cwd, symbol_by_name

__all__ = (
    "Settings",
    "appstr",
    "bugreport",
    "detect_settings",
    "filter_hidden_settings",
    "find_app",
    "sanitize_url",
    "AppPickler",
)


def appstr(app: Any) -> str:
    """Return ``name:0x...``: the app as shown in a banner."""
    return f"{app.main or '__main__'} at {id(app):#x}"


def filter_hidden_settings(conf: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``conf`` with secrets replaced by stars."""
    return {name: censored(name, value) if isinstance(name, str) else value for name, value in conf.items()}


def sanitize_url(url: str, mask: str = "********") -> str:
    """Return ``url`` with ``mask`` in place of its password."""
    from celery.app.settings.masking import MASK, mask_urls

    return mask_urls(url).replace(MASK, mask)


# -- finding


def find_app(
    app: Any,
    symbol_by_name: Callable[..., Any] = symbol_by_name,
    imp: Callable[..., Any] = import_from_cwd,
) -> Any:
    """Return the app that ``app`` means: an app, ``package.module:name``, or a module or package with one.

    In a module the names ``app`` and ``celery`` go first, then any app; a package may have it in ``package.celery``.

    Raises:
        ImportError: there is no such module.
        AttributeError: it has no such name, or no app.
    """
    from celery.app.base import Celery

    if isinstance(app, Celery) or not isinstance(app, str):
        return app if not isinstance(app, ModuleType) else _app_in(app, symbol_by_name, imp)
    found = _find(app, symbol_by_name, imp)
    if isinstance(found, ModuleType):
        return _app_in(found, symbol_by_name, imp)
    return found


def _find(path: str, symbol_by_name: Callable[..., Any], imp: Callable[..., Any]) -> Any:
    module_name, colon, name = path.partition(":")
    try:
        return symbol_by_name(path, imp=imp)
    except AttributeError:
        module = _loaded(module_name if colon else path.rpartition(".")[0])
        if module is None:
            raise
        if not colon:
            try:  # "proj.app" may be a module of the package, and not a name in it
                return imp(path)
            except ModuleNotFoundError as error:
                if error.name != path:
                    raise
                module_name, _, name = path.rpartition(".")
        raise AttributeError(_no_such_name(module_name, name, module)) from None


def _loaded(name: str) -> ModuleType | None:
    import sys

    return sys.modules.get(name)


def _no_such_name(module_name: str, name: str, module: ModuleType) -> str:
    apps = _apps_in(module)
    have = f"it has apps: {', '.join(f'`{each}`' for each in apps)}" if apps else "and there is no app in it"
    return f"Module `{module_name}` has no `{name}`; {have}."


def _apps_in(module: ModuleType) -> list[str]:
    from celery.app.base import Celery

    return [name for name, value in vars(module).items() if isinstance(value, Celery)]


def _app_in(module: ModuleType, symbol_by_name: Callable[..., Any], imp: Callable[..., Any]) -> Any:
    from celery.app.base import Celery

    named = [getattr(module, name, None) for name in ("app", "celery")]
    named = [found for found in named if found is not None and not isinstance(found, ModuleType)]
    if named:  # a web framework's application is often called ``app``, too
        return next((found for found in named if isinstance(found, Celery)), named[0])
    if hasattr(module, "__path__"):
        inner = f"{module.__name__}.celery"
        try:
            return _app_in(imp(inner), symbol_by_name, imp)
        except ModuleNotFoundError as error:
            if error.name != inner:
                raise
    apps = _apps_in(module)
    if apps:
        return getattr(module, apps[0])
    raise AttributeError(
        f"Module `{module.__name__}` has no app: give one as `{module.__name__}:NAME`, or call it `app` or `celery`."
    )


# -- describing


def bugreport(app: Any) -> str:
    """Return versions, platform and configuration (without secrets) of ``app``, to paste into a bug report."""
    import platform

    import amqp
    import billiard
    import kombu

    import celery

    try:
        connection = app.connection()
        transport, driver = connection.transport_cls, ""
        if str(transport) not in ("amqp", "memory"):
            library = connection.transport
            driver = f" {library.driver_name}:{library.driver_version()}"
    except Exception as error:  # a report is wanted most when something is wrong
        transport, driver = f"unknown ({error})", ""
    results = censored("result_backend", app.conf.result_backend) or "disabled"
    lines = [
        "",
        f"software -> celery:{celery.VERSION_BANNER} kombu:{kombu.__version__} py:{platform.python_version()}",
        f"            billiard:{billiard.__version__}{driver or f' py-amqp:{amqp.__version__}'}",
        f"platform -> system:{platform.system()} arch:{', '.join(filter(None, platform.architecture()))}",
        f"            kernel version:{platform.release()} imp:{platform.python_implementation()}",
        f"loader   -> {_path_of(type(app.loader))}",
        f"settings -> transport:{transport} results:{results}",
        "",
        app.conf.humanize(),
        "",
    ]
    return "\n".join(lines)


def _path_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


# -- pickling


class AppPickler:
    """Makes an app of the positional arguments that ``Celery.__reduce_args__`` gave.

    Subclasses add ``build_kwargs(*args)`` to understand more of them.
    """

    def __call__(self, cls: type, *args: Any) -> Any:
        kwargs = self.build_kwargs(*args)
        app = self.construct(cls, **kwargs)
        self.prepare(app, **kwargs)
        return app

    def prepare(self, app: Any, **kwargs: Any) -> None:
        """Give the new app the settings that were changed in the old one."""
        app.conf.update(kwargs["changes"])

    def build_kwargs(self, *args: Any) -> dict[str, Any]:
        return self.build_standard_kwargs(*args)

    def build_standard_kwargs(
        self,
        main: str | None,
        changes: Mapping[str, Any],
        loader: Any,
        backend: Any,
        amqp: Any,
        events: Any,
        log: Any,
        control: Any,
        accept_magic_kwargs: bool,
        config_source: Any = None,
        config_source_silent: bool = False,
    ) -> dict[str, Any]:
        return {
            "main": main,
            "loader": loader,
            "backend": backend,
            "amqp": amqp,
            "changes": changes,
            "events": events,
            "log": log,
            "control": control,
            "set_as_current": False,
            "config_source": config_source,
            "config_source_silent": config_source_silent,
        }

    def construct(self, cls: type, **kwargs: Any) -> Any:
        return cls(**kwargs)


def _unpickle_app(cls: type, pickler: type[AppPickler], *args: Any) -> Any:
    return pickler()(cls, *args)


def _unpickle_app_v2(cls: type, kwargs: dict[str, Any]) -> Any:
    kwargs["set_as_current"] = False
    return cls(**kwargs)

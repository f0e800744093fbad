"""What every loader does: import modules, read configuration, and be told of a worker's life."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import ImproperlyConfigured, reraise
from celery.utils.collections import DictAttribute, force_mapping
from celery.utils.imports import NotAPackage, find_module, import_from_cwd

if TYPE_CHECKING:
    from traceback import FrameSummary

__all__ = ("BaseLoader",)

#: nothing was read yet; what is read may well be ``None``
unconfigured = object()


class BaseLoader:
    """Base of loaders.

    A worker calls ``init_worker``, each of its processes ``init_worker_process`` and at the end
    ``shutdown_worker``; subclasses implement the hooks ``on_*``.
    """

    builtin_modules: frozenset[str] = frozenset()
    configured = False
    override_backends: dict[str, Any] = {}
    worker_initialized = False

    _conf: Any = unconfigured

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self.task_modules: set[str] = set()

    # -- hooks

    def now(self, utc: bool = True) -> datetime:
        return datetime.now(timezone.utc) if utc else datetime.now()

    def on_task_init(self, task_id: str, task: Any) -> None:
        """Called before a task runs."""

    def on_process_cleanup(self) -> None:
        """Called after a task ran."""

    def on_worker_init(self) -> None:
        """Called when a worker starts."""

    def on_worker_shutdown(self) -> None:
        """Called when a worker stops."""

    def on_worker_process_init(self) -> None:
        """Called when a process of a worker's pool starts."""

    def init_worker(self) -> None:
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def shutdown_worker(self) -> None:
        self.on_worker_shutdown()

    def init_worker_process(self) -> None:
        self.on_worker_process_init()

    # -- modules

    def import_task_module(self, module: str) -> Any:
        self.task_modules.add(module)
        return self.import_from_cwd(module)

    def import_module(self, module: str, package: str | None = None) -> Any:
        return import_module(module, package=package)

    def import_from_cwd(self, module: str, imp: Callable[..., Any] | None = None, package: str | None = None) -> Any:
        return import_from_cwd(module, self.import_module if imp is None else imp, package=package)

    def find_module(self, module: str) -> Any:
        return find_module(module)

    def import_default_modules(self) -> list[Any]:
        """Send the signal ``import_modules``, then import the modules of ``imports`` and ``include``."""
        for _, answer in signals.import_modules.send(sender=self.app):
            if isinstance(answer, Exception):
                reraise(type(answer), answer, answer.__traceback__)
        return [self.import_task_module(module) for module in self.default_modules]

    @property
    def default_modules(self) -> tuple[str, ...]:
        conf = self.app.conf
        return (*self.builtin_modules, *_listed(conf.imports), *_listed(conf.include))

    def autodiscover_tasks(self, packages: Iterable[str], related_name: str | None = "tasks") -> None:
        found = autodiscover_tasks(packages, related_name)
        self.task_modules.update(module.__name__ for module in found if module)

    # -- configuration

    @property
    def conf(self) -> Any:
        """The user's settings as a mapping."""
        if self._conf is unconfigured:
            self._conf = self.read_configuration()
        return self._conf

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        """Take settings from ``obj``, or from the module or object that this text names.

        Raises:
            ImportError: it is not there (``silent``: return ``False``).
            ImproperlyConfigured: the module is there, and failed.
        """
        if isinstance(obj, str):
            try:
                obj = import_config(obj, self._import_by_name)
            except ImportError:
                if silent:
                    return False
                raise
        self._conf = force_mapping(obj)
        backends = self._conf.get("override_backends")
        if backends is not None:
            self.override_backends = backends
        return True

    def _import_by_name(self, path: str) -> Any:
        """Import a module, or the object in one that ``package.module:name`` or ``package.module.name`` means."""
        if ":" in path:
            return self._symbol(path)
        try:
            return self.import_from_cwd(path)
        except ModuleNotFoundError as error:
            parent = path.rpartition(".")[0]
            if error.name != path or not parent:
                raise
            return self._symbol(path)

    def _symbol(self, path: str) -> Any:
        from celery.utils.imports import symbol_by_name

        return symbol_by_name(path, imp=self.import_from_cwd)  # type: ignore[no-untyped-call]

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> Any:
        """Return the settings of the module that the environment variable names, or none."""
        name = os.environ.get(env)
        return DictAttribute(import_config(name, self._import_by_name)) if name else {}

    def cmdline_config_parser(
        self,
        args: Iterable[str],
        namespace: str = "celery",
        re_type: Any = re.compile(r"\((\w+)\)"),
        extra_types: Mapping[str, Callable[[str], Any]] | None = None,
        override_types: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Turn words such as ``worker.concurrency=3`` into settings.

        ``.concurrency`` is short for ``<namespace>.concurrency``.  Values become the type of the setting; any
        other is given as ``name=(int)3`` or ``name=(json){"a": 1}``.

        Raises:
            ValueError: a word is no ``name=value``, or its value is not of that type.
        """
        import json

        types = {"json": json.loads, **(extra_types or {})}
        overrides = {"tuple": "json", "list": "json", "dict": "json"} if override_types is None else override_types
        return dict(self._cmdline_setting(word, namespace, re_type, types, overrides) for word in args)

    @staticmethod
    def _cmdline_setting(
        word: str, namespace: str, re_type: Any, types: Mapping[str, Any], overrides: Mapping[str, str]
    ) -> tuple[str, Any]:
        from celery.app.defaults import NAMESPACES, SETTING_KEYS, Option, find

        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"A setting on the command line is `name=value`, got {word!r}.")
        prefix, dot, rest = key.partition(".")
        name = f"{prefix or namespace}_{rest}".replace(".", "_").lower() if dot else key.lower()
        if (
            dot
            and not prefix
            and f"{namespace}_{rest}" not in SETTING_KEYS
            and rest.lower().replace(".", "_") in SETTING_KEYS
        ):
            name = rest.lower().replace(".", "_")
        elif not dot and name not in SETTING_KEYS and isinstance(NAMESPACES.get(namespace), dict):
            name = f"{namespace}_{name}"
        given = re_type.match(value)
        if given:
            kind, value = given.group(1), value[given.end() :]
        else:
            try:
                option = find(name).type
            except KeyError:
                raise ValueError(
                    f"Unknown setting {name!r} on the command line; one of your own needs a type: {key}=(string){value}"
                ) from None
            kind = option.type
        convert = types.get(overrides.get(kind, kind)) or Option.typemap.get(kind)
        if convert is None:
            raise ValueError(
                f"{name!r}: there is no type {kind!r}. Known: {', '.join(sorted({*types, *Option.typemap}))}."
            )
        try:
            return name, convert(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name!r}: {value!r} is no {kind} ({error})") from error


def _listed(value: Any) -> Sequence[str]:
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


# -- configuration modules


def import_config(name: str, imp: Callable[[str], Any]) -> Any:
    """Import the configuration ``name``, with an error that says what happened and what to do.

    Raises:
        ImportError: there is no such module or name, or it imports one that is not there.
        NotAPackage: ``name`` is a file name.
        ImproperlyConfigured: the module raised something.
    """
    try:
        return imp(name)
    except NotAPackage:
        raise NotAPackage(_is_no_module_name(name, name.rpartition(".")[0])) from None
    except ModuleNotFoundError as error:
        parent, _, ending = name.rpartition(".")
        if ending == "py":
            raise NotAPackage(_is_no_module_name(name, parent)) from None
        if error.name is not None and (name == error.name or name.startswith((f"{error.name}.", f"{error.name}:"))):
            text = (
                f"No module {error.name!r} for the configuration {name!r} (searched: the working directory, sys.path)."
            )
            raise ModuleNotFoundError(text, name=error.name) from None
        raise ModuleNotFoundError(f"{_place_of(error, name)} failed on import: {error}", name=error.name) from error
    except AttributeError as error:
        parent, _, ending = name.rpartition(".")
        if ending == "py":
            raise NotAPackage(_is_no_module_name(name, parent)) from None
        if _frames_outside(error):
            raise ImproperlyConfigured(_failed(error, name)) from error
        # Not as it is: an AttributeError while a setting is read as an attribute would pass for "not set".
        module, attribute = name.split(":", 1) if ":" in name else (parent, ending)
        raise ImportError(f"Module {module!r} has no {attribute!r}, for the configuration {name!r}.") from None
    except (ImportError, ImproperlyConfigured):
        raise
    except Exception as error:
        raise ImproperlyConfigured(_failed(error, name)) from error


def _is_no_module_name(name: str, better: str) -> str:
    return f"The configuration is a module, not a file: write {better!r} in place of {name!r}."


def _failed(error: BaseException, name: str) -> str:
    return f"{_place_of(error, name)} failed on import: {type(error).__name__}: {error}"


def _place_of(error: BaseException, name: str) -> str:
    """Return ``file line n`` of the user's own line that failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename)} line {error.lineno}"
    frames = _frames_outside(error)
    if not frames:
        return f"The configuration module {name!r}"
    return f"{_relative(frames[-1].filename)} line {frames[-1].lineno}"


def _frames_outside(error: BaseException) -> list[FrameSummary]:
    import traceback

    here = os.path.dirname(os.path.dirname(__file__)) + os.sep
    frames = traceback.extract_tb(error.__traceback__)
    return [
        frame
        for frame in frames
        if not frame.filename.startswith((here, "<frozen"))
        and f"importlib{os.sep}" not in frame.filename
        and f"kombu{os.sep}" not in frame.filename
    ]


def _relative(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


# -- task modules


_is_discovering = False


def autodiscover_tasks(packages: Iterable[str] | None, related_name: str | None = "tasks") -> list[Any]:
    """Import ``<package>.<related_name>`` of each package; return the modules, ``None`` where there is none."""
    global _is_discovering
    if _is_discovering:  # a module that is imported here calls us again
        return []
    _is_discovering = True
    try:
        return [find_related_module(package, related_name) for package in packages or ()]
    finally:
        _is_discovering = False


def find_related_module(package: str, related_name: str | None) -> Any:
    """Import ``package.related_name`` and return it, or ``None`` if there is no such module.

    ``package`` may also be the path of a class in a module (an application of Django): then it counts for the
    package of that module.  Without ``related_name`` the package itself is what is looked for.

    Raises:
        ImportError: there is no such package, or a module that is there imports one that is not.
    """
    try:
        module = import_module(package)
        if not related_name and module:
            return module
    except ModuleNotFoundError:
        parent = package.rpartition(".")[0]
        if not parent or find_spec(parent) is None:
            raise
        package = parent
    name = f"{package}.{related_name}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # Only the module itself may be missing; inside of one that is there it is a mistake.
        if error.name == name:
            return None
        if not hasattr(sys.modules.get(package), "__path__"):
            return None
        raise

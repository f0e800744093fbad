"""Find modules and symbols by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, reload
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kombu.utils.imports import symbol_by_name

__all__ = (
    "NotAPackage",
    "qualname",
    "instantiate",
    "symbol_by_name",
    "cwd_in_path",
    "find_module",
    "import_from_cwd",
    "reload_from_cwd",
    "module_file",
    "gen_task_name",
)

#: Scripts started with ``python -m`` are imported by workers under another name than ``__main__``.
MP_MAIN_FILE = os.environ.get("MP_MAIN_FILE")


def __getattr__(name: str) -> Any:
    if name != "symbol_by_name":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kombu.utils.imports import symbol_by_name

    globals()[name] = symbol_by_name
    return symbol_by_name


class NotAPackage(Exception):
    """A dotted name goes on below something that has no submodules."""


def qualname(obj: Any) -> str:
    """Return ``module.name`` of a class or function, or of the class of an instance."""
    if isinstance(obj, ModuleType):
        return obj.__name__
    if not hasattr(obj, "__name__") and hasattr(obj, "__class__"):
        obj = obj.__class__
    name: str = getattr(obj, "__qualname__", obj.__name__)
    return name if "." in obj.__name__ else f"{obj.__module__}.{name}"


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the class named ``package.module:Class`` (or the class itself)."""
    return _symbol_by_name()(name)(*args, **kwargs)


def _symbol_by_name() -> Callable[..., Any]:
    return sys.modules[__name__].symbol_by_name  # type: ignore[no-any-return]  # through the lazy door above


@contextmanager
def cwd_in_path() -> Iterator[None]:
    """Have the working directory first in ``sys.path``, unless it is there already."""
    try:
        cwd = os.getcwd()
    except FileNotFoundError:  # it was removed under us
        cwd = None
    if not cwd or cwd in sys.path:
        yield
        return
    sys.path.insert(0, cwd)
    try:
        yield
    finally:
        try:
            sys.path.remove(cwd)
        except ValueError:  # the imported code did it
            pass


def find_module(module: str, path: str | None = None, imp: Callable[[str], Any] | None = None) -> Any:
    """Import and return ``module``, the working directory included.

    Raises:
        NotAPackage: the name goes on below a plain module.
    """
    imp = imp or import_module
    with cwd_in_path():
        try:
            return imp(module)
        except ImportError:
            parts = module.split(".")
            for count in range(1, len(parts)):
                parent = ".".join(parts[:count])
                if not hasattr(imp(parent), "__path__"):
                    raise NotAPackage(parent) from None
            raise


def import_from_cwd(module: str, imp: Callable[..., Any] | None = None, package: str | None = None) -> Any:
    """Import ``module``, with the working directory first in ``sys.path`` meanwhile."""
    imp = imp or import_module
    with cwd_in_path():
        return imp(module, package=package)


def reload_from_cwd(module: ModuleType, reloader: Callable[[ModuleType], Any] | None = None) -> Any:
    """Reload ``module``, with the working directory first in ``sys.path`` meanwhile."""
    with cwd_in_path():
        return (reloader or reload)(module)


def module_file(module: ModuleType) -> str:
    """Return the file that ``module`` was read from."""
    name = module.__file__ or ""
    return name[:-1] if name.endswith(".pyc") else name


def gen_task_name(app: Any, name: str, module_name: str | None) -> str:
    """Return the name of a task that was given none: its module and function.

    For a task of the main script the module is ``app.main``.
    """
    module_name = module_name or "__main__"
    module = sys.modules.get(module_name)
    if module is not None:
        # in a script run by ``python -m celery`` the real name is better than ``__main__``
        module_name = module.__name__
        if MP_MAIN_FILE and getattr(module, "__file__", None) == MP_MAIN_FILE:
            module_name = "__main__"
    if module_name == "__main__" and app.main:
        return f"{app.main}.{name}"
    return f"{module_name}.{name}" if module_name else name


def load_extension_class_names(namespace: str) -> Iterator[tuple[str, str]]:
    """Yield ``(name, "module:Class")`` of the entry points in ``namespace``."""
    from importlib.metadata import entry_points

    for entry in entry_points(group=namespace):
        yield entry.name, entry.value


def load_extension_classes(namespace: str) -> Iterator[tuple[str, Any]]:
    """Yield ``(name, class)`` of the entry points in ``namespace``; warn of those that cannot be imported."""
    for name, class_name in load_extension_class_names(namespace):
        try:
            yield name, _symbol_by_name()(class_name)
        except (ImportError, SyntaxError) as error:
            import warnings

            warnings.warn(f"Cannot load {namespace} extension {class_name!r}: {error!r}", stacklevel=2)

"""Seeing whether somebody changed an object that holds settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from celery.app.settings.pending import PendingConfiguration
from celery.app.settings.table import DEFAULTS, Defaults

__all__ = ("is_default", "watcher")


def is_default(layer: Any) -> bool:
    """Whether ``layer`` is the table's defaults, and nobody's configuration."""
    return layer is DEFAULTS or isinstance(layer, Defaults)


def watcher(layer: Any) -> Callable[[], Iterable[Any]] | None:
    """Return a quick callable that gives all values of ``layer``, or ``None`` if it need not be looked at.

    Two looks that differ in the identity of a value mean a change.
    """
    if is_default(layer) or isinstance(layer, PendingConfiguration):
        return None
    if isinstance(layer, dict):
        return layer.values
    source = getattr(layer, "obj", None)  # celery.utils.collections.DictAttribute
    if source is None:
        return layer.values if isinstance(layer, Mapping) else None
    if isinstance(source, ModuleType):
        return vars(source).values
    return lambda: _values_of(source)


def _values_of(source: Any) -> list[Any]:
    own = getattr(source, "__dict__", {})
    if "_wrapped" in own:
        # Django's lazy settings copy each value they were asked for; the truth is in what they wrap, and
        # override_settings exchanges that.
        wrapped = own["_wrapped"]
        return [wrapped, *getattr(wrapped, "__dict__", {}).values()]
    values = list(own.values())
    for kind in (source if isinstance(source, type) else type(source)).__mro__[:-1]:
        if kind is not source:
            values.extend(vars(kind).values())
    return values

"""Is what the user configured usable?  One line for each thing that is not, with its place and a way out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from numbers import Real
from types import ModuleType
from typing import TYPE_CHECKING, Any

from celery.app.settings.masking import HIDDEN_SETTINGS, MASK, mask_secrets
from celery.app.settings.table import DEFAULTS, NAMESPACES, NEW_BY_OLD, OPTIONS, SETTING_KEYS, UNDECLARED
from celery.exceptions import CDeprecationWarning, CeleryWarning, ImproperlyConfigured

if TYPE_CHECKING:
    from celery.app.settings.view import Settings

__all__ = ("Misconfigured", "converted", "find_deprecated_settings", "origin", "problem", "validate", "warn_old_name")

_CHOICES: dict[str, tuple[Any, ...]] = {
    "task_protocol": (1, 2),
    "worker_pool_start_method": ("fork", "spawn", "forkserver"),
}
_NEVER_NEGATIVE = frozenset(
    {
        "broker_pool_limit",
        "task_soft_time_limit",
        "task_time_limit",
        "worker_concurrency",
        "worker_eta_task_limit",
        "worker_max_memory_per_child",
        "worker_max_tasks_per_child",
        "worker_prefetch_multiplier",
    }
)


class Misconfigured(ImproperlyConfigured):
    """One setting has a value that cannot be used."""

    def __init__(self, problem: str, origin: str) -> None:
        super().__init__(f"{problem} (from {origin}).")
        self.problem = problem
        self.origin = origin

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.origin)


# Upstream peers know the base class only.
Misconfigured.__module__ = __name__


# -- values


def converted(name: str, value: Any) -> Any:
    """Return text as a number where the setting is one, since environment variables hold text only."""
    if not isinstance(value, str):
        return value
    name = NEW_BY_OLD.get(name, name)
    if name not in OPTIONS or (OPTIONS[name].type not in ("int", "float") and name != "worker_concurrency"):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    return value


def problem(name: str, value: Any) -> str | None:
    """Say why ``value`` cannot be used for the setting ``name``, or return ``None``."""
    name = NEW_BY_OLD.get(name, name)
    if value is None or name not in OPTIONS:
        return None
    wanted = _SPECIAL.get(name, _BY_TYPE.get(OPTIONS[name].type, _anything))(value)
    if wanted is None and name in _NEVER_NEGATIVE and isinstance(value, Real) and value < 0:
        wanted = "a number that is not negative"
    if wanted is None and name in _CHOICES and value not in _CHOICES[name]:
        wanted = "one of " + ", ".join(map(repr, _CHOICES[name]))
    if wanted is None:
        return None
    shown = MASK if HIDDEN_SETTINGS.search(name) else f"{mask_secrets(value)!r:.80}"
    return f"`{name}` must be {wanted}, is {shown}"


_CONTAINERS = (str, bytes, Mapping, list, tuple, set, frozenset)


def _anything(value: Any) -> None:
    return None


def _not_a_whole_number(value: Any) -> str | None:
    return "a whole number" if isinstance(value, _CONTAINERS) else None


def _not_a_number(value: Any) -> str | None:
    if isinstance(value, timedelta):
        return None
    return "a number" if isinstance(value, _CONTAINERS) else None


def _not_a_mapping(value: Any) -> str | None:
    # A truth value turns some of them on, and queues may be a list.
    if isinstance(value, (str, bytes)) or (isinstance(value, Real) and not isinstance(value, bool)):
        return "a dictionary"
    return None


def _not_a_schedule(value: Any) -> str | None:
    return None if hasattr(value, "items") else "a dictionary of entries by name"


def _not_a_list(value: Any) -> str | None:
    return "a list" if isinstance(value, (Real, Mapping)) else None


def _not_a_concurrency(value: Any) -> str | None:
    if value == "auto" or isinstance(value, Real) or (isinstance(value, str) and value.isdigit()):
        return None
    return "a whole number ≥ 1, or `auto`"


def _not_a_timezone(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    from celery.utils.time import timezone

    try:
        timezone.get_timezone(value)
    except Exception:  # each of the zone libraries has its own
        return "the name of a time zone (is `tzdata` installed?)"
    return None


_BY_TYPE: dict[str, Callable[[Any], str | None]] = {
    "int": _not_a_whole_number,
    "float": _not_a_number,
    "dict": _not_a_mapping,
    "list": _not_a_list,
    "tuple": _not_a_list,
}
_SPECIAL: dict[str, Callable[[Any], str | None]] = {
    "beat_schedule": _not_a_schedule,
    "worker_concurrency": _not_a_concurrency,
    "timezone": _not_a_timezone,
}


# -- names


def near_misses(conf: Settings) -> Iterator[tuple[str, str, Any, bool]]:
    """Yield ``(name, meant, layer, is_harmless)`` for each configured name that is nearly one of ours.

    It does no harm where the setting of the right name is configured as well: it may be the user's own.
    """
    for layer in conf._user_layers():
        for spelled in _names(layer):
            meant = _meant(spelled, conf.prefix)
            if meant is not None:
                yield spelled, meant, layer, conf.value_set_for(meant)


def _names(layer: Any) -> Iterable[str]:
    return [name for name in layer if isinstance(name, str) and not name.startswith("_")]


def _meant(spelled: str, prefix: str | None) -> str | None:
    """Return the setting that ``spelled`` was probably meant to be, if it is none itself."""
    if spelled in SETTING_KEYS or spelled in NEW_BY_OLD or spelled in UNDECLARED:
        return None
    if prefix and spelled.startswith(prefix):
        name = spelled[len(prefix) :].lower()
        if name in SETTING_KEYS or name in UNDECLARED:
            return None
        return _closest(name, SETTING_KEYS)
    if spelled.isupper():
        old = _closest(spelled, NEW_BY_OLD) if spelled.startswith(("CELERY", "BROKER_")) else None
        return NEW_BY_OLD[old] if old else None
    return _closest(spelled, SETTING_KEYS) if spelled.islower() and "_" in spelled else None


def _closest(name: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    ours = isinstance(NAMESPACES.get(name.partition("_")[0].lower()), dict) or name.isupper()
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=0.85 if ours else 0.9)), None)


def unknown_setting(spelled: str, meant: str, conf: Settings) -> str:
    correct = meant
    if conf.prefix and spelled.startswith(conf.prefix):
        correct = conf.prefix + (meant.upper() if conf.prefix.isupper() else meant)
    return f"Unknown setting `{spelled}`. Did you mean `{correct}`?"


def _superfluous_setting(spelled: str, meant: str) -> str:
    return f"Unknown setting `{spelled}` beside `{meant}`, which is set, too: it has no effect."


def warn_near_misses(conf: Settings) -> None:
    """Warn about names below one of our own prefixes that are nearly right; part of loading a configuration."""
    for spelled, meant, layer, is_harmless in near_misses(conf):
        if isinstance(layer, dict) and not is_harmless:
            text = f"{unknown_setting(spelled, meant, conf)} (from {describe(layer, conf)})"
            warnings.warn(CeleryWarning(text), stacklevel=2)


def validate(conf: Settings) -> None:
    """See ``Settings.validate``."""
    found = []
    for spelled, meant, layer, is_harmless in near_misses(conf):
        place = f"(from {describe(layer, conf)})"
        if is_harmless:
            warnings.warn(CeleryWarning(f"{_superfluous_setting(spelled, meant)} {place}"), stacklevel=2)
        else:
            found.append(f"{unknown_setting(spelled, meant, conf)} {place}")
    for name in DEFAULTS:
        if conf.value_set_for(name):
            text = problem(name, conf.get(name))
            if text is not None:
                found.append(f"{text} (from {origin(conf, name)}).")
    found.extend(_unusable_urls(conf))
    if found:
        raise ImproperlyConfigured("\n".join(found))


def _unusable_urls(conf: Settings) -> Iterator[str]:
    from celery.app.brokers import check_urls

    told = set()
    for setting in ("broker_read_url", "broker_write_url"):
        try:
            check_urls(getattr(conf, setting), conf, setting, conf.get("broker_transport"))
        except ImproperlyConfigured as error:
            if str(error) not in told:
                told.add(str(error))
                yield str(error)


# -- places


def origin(conf: Settings, name: str) -> str:
    """See ``Settings.origin_of``."""
    for layer in conf.maps:
        for spelling in conf._candidates(name):
            if spelling in layer:
                place = describe(layer, conf)
                return place if spelling == name else f"{spelling} in {place}"
    return "the defaults"


def describe(layer: Any, conf: Settings) -> str:
    """Say what ``layer`` is, as the user knows it."""
    source = getattr(layer, "obj", layer)
    if layer is conf.changes:
        return "app.conf"
    if isinstance(source, ModuleType):
        path = getattr(source, "__file__", None)
        return os.path.relpath(path) if path else source.__name__
    module = getattr(source, "SETTINGS_MODULE", None)  # Django
    if isinstance(module, str):
        return module
    if isinstance(source, Mapping):
        return "the mapping given as configuration"
    kind = source if isinstance(source, type) else type(source)
    return f"{kind.__module__}.{kind.__qualname__}"


# -- the old


def warn_old_name(name: str) -> None:
    text = f"The setting {name} is called {NEW_BY_OLD[name]} now; the old name goes away in version 6.0.0."
    warnings.warn(CDeprecationWarning(text), stacklevel=3)


def find_deprecated_settings(source: Any) -> Any:
    """Warn about settings in ``source`` whose end is near; return ``source``."""
    for name, option in OPTIONS.items():
        if option.deprecate_by and getattr(source, name, None):
            from celery.utils import deprecated

            deprecated.warn(
                description=f"The setting {name!r}",
                deprecation=option.deprecate_by,
                removal=option.remove_by,
                alternative=f"Use {option.alt}",
            )
    return source

"""From a user's object to ``Settings``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celery.app.settings.naming import new_to_old, old_names_in, old_to_new
from celery.app.settings.table import Defaults
from celery.app.settings.view import Settings

__all__ = ("detect_settings",)


def detect_settings(
    conf: Any,
    preconf: Mapping[str, Any] | None = None,
    ignore_keys: Iterable[str] | None = None,
    prefix: str | None = None,
    all_keys: Iterable[str] | None = None,
    old_keys: Iterable[str] | None = None,
) -> Settings:
    """Return settings made of ``preconf`` over the mapping ``conf`` over the defaults.

    Names in ``ignore_keys`` do not count when it is judged whether old and new names are mixed.

    Raises:
        ImproperlyConfigured: they are.
    """
    preconf = {} if preconf is None else preconf
    old: set[str] = set()
    if not prefix:
        # Upstream: what was assigned before counts only where there is no object with settings.
        names = {*conf.keys()} or {*preconf}
        old = old_names_in(names, ignored=ignore_keys or (), new_names=all_keys, old_names=old_keys)
    return Settings(preconf, [conf, Defaults()], (old_to_new, new_to_old), prefix, deprecated_settings=old)

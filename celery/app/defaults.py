"""Settings and their defaults; a door to :mod:`celery.app.settings`."""

from __future__ import annotations

from celery.app.settings.checks import find_deprecated_settings
from celery.app.settings.options import Namespace, Option, flatten, searchresult
from celery.app.settings.table import (
    DEFAULT_ACCEPT_CONTENT,
    DEFAULT_POOL,
    DEFAULT_PROCESS_LOG_FMT,
    DEFAULT_SECURITY_DIGEST,
    DEFAULT_TASK_LOG_FMT,
    DEFAULTS,
    NAMESPACES,
    OLD_NS,
    OLD_NS_BEAT,
    OLD_NS_WORKER,
    SETTING_KEYS,
    find,
)

__all__ = (
    "DEFAULTS",
    "DEFAULT_ACCEPT_CONTENT",
    "DEFAULT_POOL",
    "DEFAULT_PROCESS_LOG_FMT",
    "DEFAULT_SECURITY_DIGEST",
    "DEFAULT_TASK_LOG_FMT",
    "NAMESPACES",
    "OLD_NS",
    "OLD_NS_BEAT",
    "OLD_NS_WORKER",
    "SETTING_KEYS",
    "Namespace",
    "Option",
    "find",
    "find_deprecated_settings",
    "flatten",
    "searchresult",
)

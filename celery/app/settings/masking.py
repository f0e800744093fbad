"""Nothing secret is shown: which settings and which parts of a value are replaced by stars."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from celery.app.settings.table import NEW_BY_OLD, SETTING_KEYS, UNDECLARED
from celery.utils.failpoints import is_active

__all__ = ("HIDDEN_SETTINGS", "MASK", "censored", "mask_secrets", "mask_urls")

MASK = "********"

#: For tests of the tests: everything is shown.
_TELLS_ALL = is_active("unprotect.masking")

#: A setting, or a key inside of one, whose name matches is never shown.
HIDDEN_SETTINGS = re.compile("API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI", re.IGNORECASE)

# The password ends at the last "@" before the next URL of a failover list, so that one with an unquoted "@"
# or "/" is covered as well.
_URL_PASSWORD = re.compile(r"([A-Za-z][\w+.-]*://[^\s:@/]*):(?:(?![A-Za-z][\w+.-]*://)[^\s'\"])*@")
_URL_QUERY_SECRET = re.compile(
    r"([?&][\w.-]*(?:password|passwd|secret|token|api_?key|signature)[\w.-]*=)[^&;\s'\"]+", re.IGNORECASE
)


def mask_urls(text: str) -> str:
    """Replace the passwords of all URLs in ``text``."""
    if "://" not in text or _TELLS_ALL:
        return text
    return _URL_QUERY_SECRET.sub(rf"\g<1>{MASK}", _URL_PASSWORD.sub(rf"\g<1>:{MASK}@", text))


def mask_secrets(value: Any) -> Any:
    """Return a copy of ``value`` without passwords in URLs and without values of keys that name a secret."""
    if isinstance(value, str):
        return mask_urls(value)
    if isinstance(value, Mapping):
        return {
            key: MASK if isinstance(key, str) and HIDDEN_SETTINGS.search(key) else mask_secrets(item)
            for key, item in value.items()
        }
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(mask_secrets(item) for item in value)
    return value


def censored(name: str, value: Any, prefix: str | None = None) -> Any:
    """Return what may be shown of the setting ``name``.

    A name that is not one of ours says nothing about its value, so only ``None`` and truth values of it are shown.
    """
    if _TELLS_ALL:
        return value
    if HIDDEN_SETTINGS.search(name):
        return MASK
    if prefix and name.startswith(prefix):
        name = name[len(prefix) :].lower()
    if value is None or isinstance(value, bool) or name in SETTING_KEYS or name in NEW_BY_OLD or name in UNDECLARED:
        return mask_secrets(value)
    return MASK

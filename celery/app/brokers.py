"""Broker URLs: is each of them understandable?  One clear line if not, before anything connects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from celery.exceptions import ImproperlyConfigured

__all__ = ("check_urls", "connection_class", "is_login_refused", "login_refused", "missing_package", "unreachable")

#: AMQP reply codes for "not you": access refused, not allowed (such a virtual host does not exist).
_REFUSALS = frozenset({403, 530})
_REFUSAL_CLASSES = frozenset({"AuthenticationError", "AuthorizationError", "AuthenticationWrongNumberOfArgsError"})
_REFUSAL_WORDS = ("NOAUTH", "WRONGPASS", "NOPERM", "invalid username-password", "Authentication required")

_VARIABLES = {
    "broker_url": "CELERY_BROKER_URL",
    "broker_read_url": "CELERY_BROKER_READ_URL",
    "broker_write_url": "CELERY_BROKER_WRITE_URL",
}
_DATABASES = ("mysql", "postgresql", "postgres", "oracle", "mssql", "mariadb")
_checked: set[tuple[Any, ...]] = set()


def connection_class(chosen: Any) -> Any:
    """Return our connection where kombu's is ``chosen``; a class of the user's own stays."""
    import kombu

    from celery.transports import Connection

    return Connection if chosen is kombu.Connection else chosen  # type: ignore[attr-defined]


def missing_package(url: Any, error: Exception, conf: Any, setting: str) -> ImproperlyConfigured:
    """Return the error that says that the transport of ``url`` cannot be imported."""
    scheme = next(_each(url), str(url)).partition("://")[0]
    text = f"The broker transport `{scheme}` of {_place(conf, setting)} needs a package that is not installed: {error}."
    return ImproperlyConfigured(text)


def check_urls(urls: Any, conf: Any, setting: str, transport: Any = None) -> None:
    """Check each URL of ``urls``, which came from ``setting``.

    Raises:
        ImproperlyConfigured: unknown scheme, or a port that is no number.  Passwords are not shown.
    """
    for url in _each(urls):
        key = (url, transport if isinstance(transport, str) else None)
        if key in _checked:
            continue
        _check(url, conf, setting, transport)
        _checked.add(key)


def _each(urls: Any) -> Iterator[str]:
    if isinstance(urls, str):
        yield from (url for url in urls.split(";") if "://" in url)
    elif isinstance(urls, (list, tuple)):
        yield from (url for url in urls if isinstance(url, str) and "://" in url)


def _check(url: str, conf: Any, setting: str, transport: Any) -> None:
    scheme, _, rest = url.partition("://")
    if transport is None:
        _check_scheme(scheme.partition("+")[0], conf, setting)
    if "," in rest.partition("/")[0].rpartition("@")[2]:  # several hosts in one URL, as some transports take
        return
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ImproperlyConfigured(f"{_place(conf, setting, url)}: {_bad_port(rest)}") from None


def _check_scheme(scheme: str, conf: Any, setting: str) -> None:
    from celery.transports import known_schemes

    known = known_schemes()
    if not scheme or scheme in known or scheme.lower() in known or "." in scheme:
        return
    from difflib import get_close_matches

    nearest = get_close_matches(scheme, known, n=1)
    hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
    if scheme in _DATABASES:
        dialect = "postgresql" if scheme == "postgres" else scheme
        hint = f" For a database as broker write `sqla+{dialect}://…`."
    raise ImproperlyConfigured(
        f"Unknown broker scheme `{scheme}` in {_place(conf, setting)}.{hint} Known: {', '.join(known)}."
    )


def _bad_port(rest: str) -> str:
    location, at, _ = rest.partition("@")
    if at and any(character in location for character in "/#?"):
        # What looks like a port is a piece of the password, and not shown.
        return "a password with `#`, `/` or `?` must be percent-encoded, as `%23`, `%2F` or `%3F`."
    host = rest.rpartition("@")[2].partition("/")[0].partition("#")[0]
    port = host.rpartition(":")[2] if ":" in host else ""
    wrong = f"the port is `{port}`, which is no number from 0 to 65535" if port else "it cannot be understood"
    return f"{wrong}. A password with `#`, `@`, `/`, `[` or `]` must be percent-encoded."


def _place(conf: Any, setting: str, url: str | None = None) -> str:
    """Say where the URL comes from: the setting that was used, or its environment variable; and the URL, masked."""
    from celery.app.settings.masking import MASK, mask_urls

    name = setting
    if not os.environ.get(_VARIABLES[setting]) and not conf.get(setting):
        name = "broker_url"
    variable = _VARIABLES[name]
    place = f"`{name}`" + (f" (environment variable {variable})" if os.environ.get(variable) else "")
    if url is None:
        return place
    shown = mask_urls(url)
    if shown == url and ":" in url.partition("://")[2]:
        scheme = url.partition("://")[0]
        shown = f"{scheme}://{MASK}" if "@" in url else url
    return f"{place} ({shown})"


# -- what a broker says, or does not -----------------------------------------------------------------------------------


def is_login_refused(exc: BaseException) -> bool:
    """Return whether the broker answered, and refused who we are."""
    return any(_refuses(link) for link in _chain(exc))


def _refuses(exc: BaseException) -> bool:
    if getattr(exc, "reply_code", None) in _REFUSALS:
        return True
    if not _REFUSAL_CLASSES.isdisjoint(cls.__name__ for cls in type(exc).__mro__):
        return True
    return str(exc).startswith(_REFUSAL_WORDS)


def login_refused(connection: Any, exc: BaseException) -> str:
    """Return the line that says that the broker of ``connection`` refused the login."""
    refusal = next((link for link in _chain(exc) if _refuses(link)), exc)
    text = str(refusal).partition(" For details")[0].rstrip(" .")
    user = f" for user `{connection.userid}`" if connection.userid else ""
    return (
        f"The broker at {connection.as_uri()} refused the login{user} (this is not a network error): {text}. "
        "Check user, password, virtual host and permissions in `broker_url`."
    )


def unreachable(connection: Any, exc: BaseException) -> str:
    """Return the line that says that nobody answers where the broker should be."""
    host = f"{connection.hostname or 'localhost'}"
    if host.startswith("/") or "://" in host:
        place = host
    else:
        port = connection.port or connection.transport.default_port
        place = f"{host}:{port}" if port else host
    return f"Cannot reach {connection.transport_cls} at {place} ({_reason(exc)})."


def _reason(exc: BaseException) -> str:
    for link in _chain(exc):
        if isinstance(link, OSError) and link.errno and link.strerror:
            return link.strerror.lower()
    return str(exc).rstrip(" .") or type(exc).__name__


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield ``exc`` and what it came from, the deepest first."""
    links: list[BaseException] = []
    while exc is not None and exc not in links:
        links.append(exc)
        exc = exc.__cause__ or exc.__context__
    yield from reversed(links)

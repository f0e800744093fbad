"""The canonical document that a signature covers: everything that decides what runs, as bytes.

A header says what the message itself does not (who signed, when, a nonce, for which destination, which further headers
there were); with the message it makes the document.  So nothing travels twice.
"""

from __future__ import annotations

import json
from calendar import timegm
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any

from celery.exceptions import SecurityError

__all__ = ("SIGNATURE", "Claim", "Content", "document", "read_header", "signed_names", "write_header")

#: The header; peers do not know it, and carry it.
SIGNATURE = "x-celeriac-signature"

VERSION = 1

#: Headers of task and control messages that are always covered: one that is not there is covered as such.
COVERED = (
    "argsrepr",
    "eta",
    "expires",
    "group",
    "group_index",
    "id",
    "ignore_result",
    "kwargsrepr",
    "lang",
    "origin",
    "parent_id",
    "replaced_task_nesting",
    "retries",
    "root_id",
    "shadow",
    "stamped_headers",
    "stamps",
    "task",
    "timelimit",
)

#: Headers that change on the way: transports and brokers count losses there, and say how they packed the body.
_CHANGING = frozenset({"compression", "redelivered", "x-acquired-count", "x-death", "x-delivery-count"})
_CHANGING_PREFIXES = ("x-celeriac-", "x-first-death-", "x-last-death-")

_PROPERTIES = ("correlation_id", "reply_to")


@dataclass(frozen=True, slots=True)
class Claim:
    """What the header says.

    ``issued_at`` is in seconds since the epoch, ``to`` exchange and routing key, ``names`` the headers that were there
    besides those always covered.
    """

    key_id: str
    issued_at: float
    nonce: str
    to: tuple[str, str]
    names: tuple[str, ...]
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What the signature is about: ``body`` serialized and not compressed."""

    kind: str
    body: bytes
    content_type: str | None
    content_encoding: str | None
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]


def signed_names(headers: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of ``headers`` that are to be covered besides those that always are."""
    return tuple(sorted(name for name in headers if name not in COVERED and not is_changing(name)))


def is_changing(name: str) -> bool:
    """Return whether transports may add or change the header on the way."""
    return name in _CHANGING or name.startswith(_CHANGING_PREFIXES)


def document(claim: Claim, content: Content) -> bytes:
    """Return the bytes that are signed."""
    values = {name: _plain(content.headers.get(name)) for name in (*COVERED, *claim.names)}
    return json.dumps(
        {
            "version": VERSION,
            "kind": content.kind,
            "key": claim.key_id,
            "at": claim.issued_at,
            "nonce": claim.nonce,
            "to": claim.to,
            "names": claim.names,
            "headers": values,
            "properties": {name: _plain(content.properties.get(name)) or "" for name in _PROPERTIES},
            "content": [content.content_type or "", (content.content_encoding or "").lower()],
            "body": sha256(content.body).hexdigest(),
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()


def _plain(value: Any) -> Any:
    """Return ``value`` as it looks after any broker: tuples are lists there, times have whole seconds."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(inner) for inner in value), key=repr)
    if isinstance(value, datetime):
        return ["time", timegm(_in_utc(value).timetuple())]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    return str(value)


def _in_utc(value: datetime) -> datetime:
    return value if value.tzinfo is None else value.astimezone(timezone.utc)


# -- the header


def write_header(claim: Claim) -> str:
    """Return ``claim`` as it travels."""
    return json.dumps(
        {
            "v": VERSION,
            "key": claim.key_id,
            "at": claim.issued_at,
            "nonce": claim.nonce,
            "to": claim.to,
            "names": claim.names,
            "sig": claim.signature,
        },
        separators=(",", ":"),
    )


def read_header(value: Any) -> Claim:
    """Return what a header claims.

    Raises:
        SecurityError: it is none.
    """
    try:
        found = json.loads(value)
        if found["v"] != VERSION:
            raise SecurityError(f"the signature is of version {found['v']!r}; this worker knows version {VERSION}")
        exchange, routing_key = found["to"]
        to, names = (exchange, routing_key), tuple(found["names"])
        claim = Claim(found["key"], found["at"], found["nonce"], to, names, found["sig"])
        if not (type(found["to"]) is type(found["names"]) is list):
            raise TypeError("no lists")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SecurityError(f"the signature cannot be read: {type(error).__name__}") from None
    texts: Iterable[Any] = (claim.key_id, claim.nonce, *claim.to, *claim.names, claim.signature)
    if not all(type(text) is str for text in texts) or type(claim.issued_at) not in (int, float):
        raise SecurityError("the signature cannot be read: a part of it is of the wrong type")
    if not 16 <= len(claim.nonce) <= 64:
        raise SecurityError("the signature cannot be read: its nonce is too short or too long")
    return claim

"""Sign what an app sends, and check what it takes: one signature over all that decides what runs.

What each check keeps out is told in docs/design/signing.md.
"""

from __future__ import annotations

import math
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kombu.utils.encoding import bytes_to_str, ensure_bytes

from celery.exceptions import SecurityError
from celery.security.certificate import Certificate
from celery.security.document import (
    COVERED,
    SIGNATURE,
    Claim,
    Content,
    document,
    is_changing,
    read_header,
    signed_names,
    write_header,
)
from celery.security.key import PrivateKey
from celery.security.utils import get_digest_algorithm
from celery.utils.failpoints import is_active
from celery.utils.time import maybe_iso8601

__all__ = ("COMMAND", "TASK", "Signing", "Verified", "check_queue")

TASK, COMMAND = "task", "command"

#: By how many seconds another machine's clock may be ahead.
CLOCK_SKEW_SECONDS = 300.0

#: A remote control command is for now.
COMMAND_SECONDS = 300.0

#: Delayed delivery sends a message from exchange to exchange; its destination is in the routing key.
_DELAYED_EXCHANGES = "celery_delayed_"

#: Whether a test of the tests has switched this protection off.
_TRUSTS = is_active("unprotect.signing")


@dataclass(frozen=True, slots=True)
class Verified:
    """A message whose signature is good: remember ``nonce`` until ``forget_at`` (seconds since the epoch)."""

    nonce: str
    forget_at: float
    issued_at: float
    to: tuple[str, str]
    #: The headers that were signed, with those that change on the way.
    headers: dict[str, Any]


class Signing:
    """Signs with ``key``, whose certificate is ``cert``; knows the signers in ``cert_store``.

    ``conf`` gives ``security_accept_upstream`` and ``security_replay_window``, read at each use.
    """

    def __init__(
        self,
        key: PrivateKey,
        cert: Certificate,
        cert_store: Any,
        digest: str,
        conf: Any,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._key_id = bytes_to_str(cert.get_id())
        self._cert_store = cert_store
        self._digest = get_digest_algorithm(digest)
        self._conf = conf
        self._clock = clock

    @property
    def accepts_upstream(self) -> bool:
        """Whether messages of which the body alone is signed are taken, too."""
        return bool(self._conf.security_accept_upstream)

    @property
    def window_seconds(self) -> float:
        """How old a task message may be when a worker takes it, and how long its nonce is remembered."""
        return float(self._conf.security_replay_window)

    # -- sending

    def sign(
        self,
        kind: str,
        body: str | bytes,
        content_type: str,
        content_encoding: str,
        headers: dict[str, Any],
        properties: Mapping[str, Any],
        exchange: str,
        routing_key: str,
    ) -> None:
        """Put the signature of a message that is about to be published into its ``headers``."""
        content = Content(kind, ensure_bytes(body), content_type, content_encoding, headers, properties)
        claim = Claim(self._key_id, self._clock(), os.urandom(16).hex(), (exchange, routing_key), signed_names(headers))
        signature = self._key.sign(document(claim, content), self._digest)
        headers[SIGNATURE] = write_header(replace(claim, signature=b64encode(signature).decode()))

    # -- taking

    def check(self, kind: str, message: Any) -> Verified | None:
        """Return what is known of a message whose signature holds, or ``None`` where the setting lets it pass without.

        Raises:
            SecurityError: it does not hold; the text says why.
        """
        if _TRUSTS:
            return None
        headers = message.headers or {}
        try:
            return self._check(kind, message, headers)
        except SecurityError:
            # Celery carries our signature along when it sends a task again, which then does not fit.  That is no worse
            # than none, which whoever changes a message could have made it.
            if self.accepts_upstream:
                return None
            raise

    def _check(self, kind: str, message: Any, headers: Mapping[str, Any]) -> Verified:
        if SIGNATURE not in headers:
            raise SecurityError(
                "its headers are not signed; where Celery sends, too, set `security_accept_upstream = True`"
            )
        claim = read_header(headers[SIGNATURE])
        self._check_signature(kind, claim, message, headers)
        check_destination(claim.to, message.delivery_info or {})
        forget_at = self._check_age(kind, claim, headers)
        return Verified(claim.nonce, forget_at, claim.issued_at, claim.to, _only_signed(headers, claim))

    def _check_signature(self, kind: str, claim: Claim, message: Any, headers: Mapping[str, Any]) -> None:
        certificate = self._cert_store[claim.key_id]
        certificate.check_time()
        try:
            signature = b64decode(claim.signature, validate=True)
            body = ensure_bytes(message.body if message.body is not None else b"")
            content = Content(
                kind, bytes(body), message.content_type, message.content_encoding, headers, message.properties or {}
            )
            signed = document(claim, content)
        except Exception as error:  # a body that cannot be unpacked, a header that no JSON can hold
            raise SecurityError(f"its signature cannot be checked: {type(error).__name__}: {error}") from error
        if b64encode(signature).decode() != claim.signature:  # base64 leaves some bits at its end unused
            raise SecurityError("its signature does not fit: the message was changed")
        try:
            certificate.verify(signed, signature, self._digest)
        except SecurityError:
            raise SecurityError("its signature does not fit: the message was changed") from None

    def _check_age(self, kind: str, claim: Claim, headers: Mapping[str, Any]) -> float:
        """Return when a copy of the message will be too old."""
        now = self._clock()
        if claim.issued_at > now + CLOCK_SKEW_SECONDS:
            raise SecurityError(f"it was signed {claim.issued_at - now:.0f} s in the future; are the clocks right?")
        begins = claim.issued_at
        if kind == TASK:
            begins, seconds, setting = max(begins, _eta_of(headers)), self.window_seconds, " (security_replay_window)"
        else:
            seconds, setting = COMMAND_SECONDS, ""
        if not now <= begins + seconds:  # a number that is none fails, too
            raise SecurityError(f"it is {now - begins:.0f} s old; at most {seconds:.0f} s are taken{setting}")
        return begins + seconds


def check_destination(to: tuple[str, str], delivery_info: Mapping[str, Any]) -> None:
    """Check that the broker delivered what was sent there.

    Raises:
        SecurityError: it came by another way.
    """
    came = delivery_info.get("exchange") or "", delivery_info.get("routing_key") or ""
    both_delayed = to[0].startswith(_DELAYED_EXCHANGES) and str(came[0]).startswith(_DELAYED_EXCHANGES)
    if to != came and not (both_delayed and to[1] == came[1]):
        raise SecurityError(f"it was sent to {_way(to)} and came by {_way(came)}")


def check_queue(to: tuple[str, str], name: str, queue: Any) -> None:
    """Check that a message sent ``to`` there belongs into the queue it was found in, where the broker lets that differ.

    ``name`` is the queue's, ``queue`` its declaration if there is one.

    Raises:
        SecurityError: it does not belong there.
    """
    exchange, routing_key = to
    if not exchange:
        belongs = name == routing_key
    elif queue is None or queue.exchange is None:
        return
    else:
        ways = [(queue.exchange, queue.routing_key), *((each.exchange, each.routing_key) for each in queue.bindings)]
        # Direct exchanges compare routing keys; what a pattern of another kind means is the broker's affair.
        belongs = any(
            way is not None and way.name == exchange and (way.type != "direct" or key == routing_key)
            for way, key in ways
        )
    if not belongs:
        raise SecurityError(f"it was sent to {_way(to)} and lay in queue {name!r:.100}")


def _way(way: tuple[Any, Any]) -> str:
    exchange = f"{way[0]!r:.100}" if way[0] else "the default exchange"
    return f"{exchange} with routing key {way[1]!r:.100}"


def _only_signed(headers: Mapping[str, Any], claim: Claim) -> dict[str, Any]:
    """Return the headers that nobody can have added: those signed, and those that transports write."""
    covered = {*COVERED, *claim.names}
    return {name: value for name, value in headers.items() if name in covered or is_changing(name)}


def _eta_of(headers: Mapping[str, Any]) -> float:
    """Return when the task is to start, in seconds since the epoch; what is no time counts as long ago."""
    try:
        eta = maybe_iso8601(headers.get("eta"))
        return -math.inf if eta is None else eta.timestamp()
    except (TypeError, ValueError, OverflowError):
        return -math.inf

"""Chords: when all members of the header have ended, the body is sent; if one failed, the body fails.

A store that can count does so as members end (``on_chord_part_return``).  For the others a task,
``celery.chord_unlock``, looks from time to time.  Either way the body is released once: members are delivered
twice now and then, so a count alone proves nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.errbacks import StandIn, last_task, members_of
from celery.exceptions import ChordError
from celery.result import GroupResult, allow_join_result
from celery.utils.log import get_logger

__all__ = ("Chords", "CountedChords", "chord_error_text", "fail_body", "release_body")

logger = get_logger(__name__)


class Chords:
    """Chords of a store that cannot count."""

    app: Any
    if TYPE_CHECKING:  # what the store beside it gives
        _call_task_errbacks: Callable[..., None]
        fail_from_current_stack: Callable[..., Any]

    def ensure_chords_allowed(self) -> None:
        """Raise NotImplementedError if this store cannot do chords."""

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Note how many members the header has; only stores that count need to know."""

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Make ``result`` a member of a header that runs already."""
        raise NotImplementedError("Backend does not support add_to_chord")

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a member that has ended; only stores that count do."""

    def on_unreadable_part(self, request: Any, error: BaseException) -> None:
        """A member's message cannot be read, so nobody knows its body; only stores that keep that need to know."""

    def sweep_chords(self) -> int:
        """End the chords whose members do not report any more; return how many.  Workers call it now and then."""
        return 0

    def apply_chord(self, header_result_args: tuple[Any, ...], body: Any, **kwargs: Any) -> None:
        """Prepare for the header whose members are about to be sent."""
        self.ensure_chords_allowed()
        self.fallback_chord_unlock(self.app.GroupResult(*header_result_args), body, **kwargs)

    def fallback_chord_unlock(self, header_result: Any, body: Any, countdown: float = 1, **kwargs: Any) -> None:
        """Send ``celery.chord_unlock``, which waits for the header and then sends ``body``."""
        kwargs["result"] = [result.as_tuple() for result in header_result]
        options = body.get("options") or {}
        body_task = self.app.tasks.get(body.get("task"))
        queue = options.get("queue", getattr(body_task, "queue", None))
        kwargs["_chord_unlock_exchange_type"] = self._exchange_type_of(queue)
        self.app.tasks["celery.chord_unlock"].apply_async(
            (header_result.id, body),
            kwargs,
            countdown=countdown,
            queue=queue,
            priority=options.get("priority", getattr(body_task, "priority", 0)),
        )

    def _exchange_type_of(self, queue: Any) -> str:
        """Return the type of the exchange that ``queue`` hangs on; the task sends itself again through it."""
        queues = self.app.amqp.queues
        found = queue if hasattr(queue, "exchange") else queues.get(queue or self.app.conf.task_default_queue)
        exchange = getattr(found, "exchange", None)
        return getattr(exchange, "type", None) or "direct"

    def chord_error_from_stack(self, callback: Any, exc: BaseException | None = None) -> Any:
        """Fail the body ``callback`` of a chord, and call its errbacks."""
        last = last_task(callback)
        if last.get("subtask_type") == "group":
            for member in members_of(last):
                self._fail_body(member, exc, inherited=_errbacks(callback))
            return None
        return self._fail_body(callback, exc)

    def _fail_body(self, body: Any, exc: BaseException | None, inherited: Iterable[Any] = ()) -> Any:
        exc = exc if exc is not None else sys.exc_info()[1]
        body = self.app.signature(body)
        request = StandIn.of_signature(last_task(body))
        task = self.app.tasks.get(request.task)
        backend: Any = (getattr(task, "backend", None) if task is not None else None) or self
        request.errbacks = _once([*_errbacks(body), *inherited])
        if request.errbacks:
            try:
                self._call_task_errbacks(request, exc, None)
            except Exception as error:  # a broken errback is a second failure; the first must be stored all the same
                logger.exception("Cannot call the errbacks of %r", body)
                exc = error
        failed = backend.fail_from_current_stack(request.id, exc=exc)
        backend.fail_steps_after(request, exc, failed.traceback)
        if request.chord:  # the body is itself a member of a header: that one ends, too
            backend.on_chord_part_return(request, states.FAILURE, exc)
        return failed


def _errbacks(body: Any) -> list[Any]:
    own = (body.get("options") or {}).get("link_error") or []
    inner = (body.get("kwargs") or {}).get("body") if body.get("subtask_type") == "chord" else None
    return [*own, *(_errbacks(inner) if inner else ())]


def _once(errbacks: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for errback in errbacks:
        if errback not in found:
            found.append(errback)
    return found


class CountedChords(Chords):
    """Chords of a key-value store that has ``incr``."""

    implements_incr: bool = False
    if TYPE_CHECKING:  # what the key-value store beside it gives
        get: Callable[[Any], Any]
        set: Callable[[Any, Any], Any]
        delete: Callable[[Any], Any]
        incr: Callable[[Any], Any]
        expire: Callable[[Any, Any], Any]
        get_key_for_chord: Callable[..., Any]

        @property
        def chord_expires(self) -> Any: ...

    def apply_chord(self, header_result_args: tuple[Any, ...], body: Any, **kwargs: Any) -> None:
        """Save the header under its id and set its count to 0, or fall back to ``celery.chord_unlock``."""
        if not self.implements_incr:
            return super().apply_chord(header_result_args, body, **kwargs)
        self.ensure_chords_allowed()
        header = self.app.GroupResult(*header_result_args)
        for key in (self.get_key_for_chord(header.id), self._claim_key(header.id)):
            self.set(key, 0)
            self.expire(key, self.chord_expires)
        header.save(backend=self)
        return None

    def _claim_key(self, group_id: str) -> Any:
        return self.get_key_for_chord(group_id, ".c")

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a member; the last one to end sends the body."""
        if not self.implements_incr or not request.group:
            return
        group_id = request.group
        body = self.app.signature(request.chord)
        try:
            header = GroupResult.restore(group_id, backend=self, app=self.app)
        except Exception as error:
            logger.exception("Chord %r: cannot read the header", group_id)
            fail_body(self, body, ChordError(f"Cannot restore group: {error!r}"), error)
            return
        if header is None:
            if not self._is_claimed(group_id):
                fail_body(self, body, ChordError(f"GroupResult {group_id} no longer exists"))
            return
        count = self.incr(self.get_key_for_chord(group_id)) or 0
        if count < len(header):
            self.expire(self.get_key_for_chord(group_id), self.chord_expires)
        elif header.ready() and self._claim(group_id):
            self._release(header, body, group_id)

    def _is_claimed(self, group_id: str) -> bool:
        return bool(int(self.get(self._claim_key(group_id)) or 0))

    def _claim(self, group_id: str) -> bool:
        """Whether this process is the one to send the body."""
        key = self._claim_key(group_id)
        if self.get(key) is None:  # Upstream: Celery clients start chords without this key
            self.set(key, 0)
        return self.incr(key) == 1

    def _release(self, header: Any, body: Any, group_id: str) -> None:
        try:
            release_body(self, header, body, group_id)
        finally:
            header.delete(backend=self)
            self.delete(self.get_key_for_chord(group_id))
            self.expire(self._claim_key(group_id), self.chord_expires)


def release_body(backend: Any, header: Any, body: Any, group_id: str) -> None:
    """Send ``body`` with the values of ``header``, whose members have all ended; or fail it."""
    join = header.join_native if header.supports_native_join else header.join
    try:
        with allow_join_result():
            values = join(timeout=backend.app.conf.result_chord_join_timeout, propagate=True)
    except Exception as error:
        fail_body(backend, body, ChordError(chord_error_text(header, error)), error)
        return
    try:
        body.delay(values)
    except Exception as error:
        logger.exception("Chord %r: cannot send the body", group_id)
        fail_body(backend, body, ChordError(f"Callback error: {error!r}"), error)


def chord_error_text(header: Any, error: BaseException) -> str:
    """Return which member failed, and how."""
    culprit = next(header._failed_join_report(), None)
    return repr(error) if culprit is None else f"Dependency {culprit.id} raised {error!r}"


def fail_body(backend: Any, body: Any, error: ChordError, cause: BaseException | None = None) -> None:
    """Fail ``body`` with ``error``, with a traceback that ends here."""
    try:
        raise error from cause
    except ChordError:
        backend.chord_error_from_stack(body, error)

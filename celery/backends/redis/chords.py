"""Chords on Redis: members are counted on the server, under the keys that Celery uses.

    .j  the parts, in the order of the header      .t  how many were added later
    .s  how many there are to be                   .d  which are counted already
    .c  who is sending the body, then ``done``     .b  the body, for those who end a chord whose members cannot
    .w  it was seen complete, with nobody at it

The body is sent by the one who holds the claim ``.c``.  A claim ends by itself, so that another delivery of a member,
or the sweep, sends the body if its holder died; it always has the same task id.  See docs/design/chords.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kombu.exceptions import EncodeError
from kombu.utils.encoding import bytes_to_str

from celery import states
from celery.backends.chords import fail_body
from celery.backends.redis.scripts import COUNT, FINISH, HOLD, OPEN, SWEEP
from celery.exceptions import ChordError
from celery.result import GroupResult, ResultSet, allow_join_result
from celery.utils.failpoints import failpoint, is_active
from celery.utils.log import get_logger

__all__ = ("RedisChords",)

logger = get_logger(__name__)

#: Seconds for which the claim is kept while the body is being sent.
HOLD_SECONDS = 21
#: Seconds for which it is remembered that the body was sent.
DONE_SECONDS = 300

#: Seconds between two looks at an open chord, and how many are looked at in one step.
LOOK_SECONDS = 60
LOOKS_AT_ONCE = 500
#: Seconds for which a body outlives what counted its header, so that somebody can still fail it.
BODY_OUTLIVES_SECONDS = 86_400
#: The list of open chords; it looks like the key of a group.
OPEN_CHORDS = "celeriac-open-chords"

#: Whether a test of the tests has switched a protection off.
_NEVER_SWEEPS = is_active("unprotect.chord_sweep")
_CLAIMS_NOTHING = is_active("unprotect.chord_claim")


class RedisChords:
    """What ``RedisBackend`` knows of chords."""

    app: Any
    if TYPE_CHECKING:  # what the rest of the backend gives
        expires: Any
        _ensured: Callable[[Callable[[Any], Any]], Any]
        _set_plain: Callable[[Any, Any, Any], Any]
        get: Callable[[Any], Any]
        incr: Callable[[Any], Any]
        encode: Callable[[Any], Any]
        decode: Callable[[Any], Any]
        encode_result: Callable[[Any, str], Any]
        exception_to_python: Callable[[Any], Any]
        do_or_owe: Callable[..., None]
        is_passing_trouble: Callable[[BaseException], bool]
        get_key_for_group: Callable[..., Any]

        @property
        def group_keyprefix(self) -> Any: ...

        @property
        def chord_expires(self) -> Any: ...

    chord_parts_hold_values = True

    def _is_ordered(self) -> bool:
        return (self.app.conf.result_backend_transport_options or {}).get("result_chord_ordered", True)

    def _chord_key(self, group_id: str, suffix: str) -> Any:
        return self.get_key_for_group(group_id, suffix)

    def apply_chord(self, header_result_args: tuple[Any, ...], body: Any, **kwargs: Any) -> None:
        """Save the body, and a header that is not flat: its values cannot be put together from the parts alone."""
        header = self.app.GroupResult(*header_result_args)
        if any(isinstance(member, ResultSet) for member in header.results):
            value = self.encode({"result": header.as_tuple()})
            self._set_plain(self.get_key_for_group(header.id), value, self.expires)
        self._open(header.id, body)

    def _open(self, group_id: str, body: Any) -> None:
        """Enter the chord in the list that the sweep goes through."""
        try:
            packed = self.encode(body)
        except EncodeError as error:  # tasks may be sent by another serializer than results
            logger.debug("Chord %r: its body cannot be kept with the results: %r", group_id, error)
            return
        expires = int(self.chord_expires or 0)
        keys = [self.get_key_for_group(OPEN_CHORDS), self._chord_key(group_id, ".b")]
        arguments = [
            group_id,
            packed,
            min(expires or LOOK_SECONDS, LOOK_SECONDS),
            expires and expires + BODY_OUTLIVES_SECONDS,
        ]
        self._ensured(lambda line: OPEN.call(line, keys, arguments))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Begin to count, up to ``chord_size``."""
        expires = int(self.chord_expires or 0)
        size = ("SET", self._chord_key(group_id, ".s"), chord_size, *(("EX", expires) if expires else ()))
        self._ensured(lambda line: line.call_many([("DEL", self._chord_key(group_id, ".c")), size]))

    def add_to_chord(self, group_id: str, result: Any) -> None:
        """Count up to one more."""
        self.incr(self._chord_key(group_id, ".t"))

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: bool | None = None, **kwargs: Any
    ) -> None:
        """Count a member that has ended; the last one to end sends the body.

        With ``propagate`` false, a failed member's exception is a value like any other.
        """
        group_id, task_id = request.group, request.id
        if not group_id or not task_id:
            return
        part = self.encode([1, task_id, state, self.encode_result(result, state)])
        index, body = request.group_index, request.chord

        def count_and_release() -> None:
            token = f"{task_id}:{uuid4().hex}"
            if self._count(group_id, task_id, index, part, token):
                failpoint("chord.before_release")
                self._send_body(group_id, self.app.signature(body), token, propagate is not False)

        self.do_or_owe(count_and_release, lambda: len(part))

    def _count(self, group_id: str, task_id: str, index: Any, part: Any, token: str) -> int:
        keys = [self._chord_key(group_id, suffix) for suffix in (".j", ".t", ".s", ".d", "", _claim(token))]
        arguments = [
            task_id,
            part,
            int(self._is_ordered()),
            "+inf" if index is None else index,
            int(self.chord_expires or 0),
            int(self.expires or 0),
            max(1, int(2 * self.app.conf.result_chord_join_timeout)),
            token,
        ]
        return self._ensured(lambda line: COUNT.call(line, keys, arguments))

    def _send_body(self, group_id: str, body: Any, token: str, propagate: bool) -> None:
        try:
            values = self._values_of(group_id, propagate)
        except Exception as error:
            if self.is_passing_trouble(error):
                raise  # the chord is not to blame; the claim is kept for whoever comes again
            logger.debug("Chord %r fails: %r", group_id, error)
            chord_error = error if isinstance(error, ChordError) else ChordError(f"Join error: {error!r}")
            self._end_in_error(group_id, body, token, chord_error, error.__cause__ or error)
            return
        if not self._holds(group_id, token):
            return  # it took so long that another took over
        try:
            body.delay(values)
        except Exception as error:
            logger.exception("Chord %r: cannot send the body", group_id)
            self._end_in_error(group_id, body, token, ChordError(f"Callback error: {error!r}"), error)
            return
        failpoint("chord.after_release")
        self._finish_soon(group_id, token)

    def _holds(self, group_id: str, token: str) -> bool:
        keys = [self._chord_key(group_id, suffix) for suffix in (_claim(token), ".s", ".b")]
        return bool(self._ensured(lambda line: HOLD.call(line, keys, [token, HOLD_SECONDS])))

    def _finish_soon(self, group_id: str, token: str) -> None:
        """Finish, and should the store be away, only that is done again: the body is on its way."""
        self.do_or_owe(partial(self._finish, group_id, token))

    def _finish(self, group_id: str, token: str) -> None:
        """No further delivery of a member completes the chord again."""
        if _CLAIMS_NOTHING:
            return
        keys = [self._chord_key(group_id, suffix) for suffix in (".j", ".t", ".s", ".d", ".b", ".w")]
        keys = [self._chord_key(group_id, _claim(token)), self.get_key_for_group(OPEN_CHORDS), *keys]
        self._ensured(lambda line: FINISH.call(line, keys, [token, DONE_SECONDS, group_id]))

    def _end_in_error(
        self, group_id: str, body: Any, token: str, error: ChordError, cause: BaseException | None = None
    ) -> None:
        if self._holds(group_id, token):
            fail_body(self, body, error, cause)
            self._finish_soon(group_id, token)

    # -- members that do not report

    def _kept_body(self, group_id: str) -> Any:
        packed = self.get(self._chord_key(group_id, ".b"))
        return None if packed is None else self.app.signature(self.decode(packed))

    def on_unreadable_part(self, request: Any, error: BaseException) -> None:
        """Count a member whose message cannot be read: it has failed."""
        body = self._kept_body(request.group)
        if body is not None:
            part = SimpleNamespace(group=request.group, id=request.id, group_index=request.group_index, chord=body)
            self.on_chord_part_return(part, states.FAILURE, error)

    def sweep_chords(self) -> int:
        """End the chords whose counters have expired, and send the bodies that were left; return how many."""
        if _NEVER_SWEEPS:
            return 0
        prefix = bytes_to_str(self.group_keyprefix)
        keys = [self.get_key_for_group(OPEN_CHORDS)]
        options = self.app.conf.result_backend_transport_options or {}
        pause = max(1, int(options.get("chord_sweep_interval") or LOOK_SECONDS))
        arguments = [prefix, int(self._is_ordered()), pause, LOOKS_AT_ONCE, BODY_OUTLIVES_SECONDS]
        found = self._ensured(lambda line: SWEEP.call(line, keys, arguments))
        for group_id, trouble in zip(found[::2], found[1::2], strict=True):
            self._end_left(bytes_to_str(group_id), bytes_to_str(trouble))
        return len(found) // 2

    def _end_left(self, group_id: str, trouble: str) -> None:
        body, token = self._kept_body(group_id), uuid4().hex
        if body is None or not self._holds(group_id, token):
            return
        logger.warning("Chord %r is %s: ending it", group_id, trouble)
        if trouble == "unreleased":
            self._send_body(group_id, body, token, propagate=True)
            return
        seconds = int(self.chord_expires or 0)
        error = ChordError(
            f"The header of chord {group_id} did not end within {seconds} seconds, after which results expire "
            "(result_chord_expires, result_expires)"
        )
        self._end_in_error(group_id, body, token, error)

    def _values_of(self, group_id: str, propagate: bool) -> list[Any]:
        """Return what the members returned, in order; raise ChordError if one failed."""
        header = GroupResult.restore(group_id, backend=self, app=self.app)
        if header is not None:
            return self._values_of_saved(header, propagate)
        return [self._value_of_part(part, propagate) for part in self._parts(group_id)]

    def _values_of_saved(self, header: Any, propagate: bool) -> list[Any]:
        timeout = self.app.conf.result_chord_join_timeout
        join = header.join_native if header.supports_native_join else header.join
        try:
            with allow_join_result():
                return join(timeout=timeout, propagate=propagate)
        except Exception as error:
            culprit = next(header._failed_join_report(), None)
            if culprit is None and self.is_passing_trouble(error):
                raise
            text = f"Dependency {culprit.id} raised {error!r}" if culprit is not None else repr(error)
            raise ChordError(text) from error

    def _parts(self, group_id: str) -> list[Any]:
        key = self._chord_key(group_id, ".j")
        command = ("ZRANGE", key, 0, -1) if self._is_ordered() else ("LRANGE", key, 0, -1)
        return self._ensured(lambda line: line.call_many([("MULTI",), command, ("EXEC",)]))[-1][0]

    def _value_of_part(self, part: Any, propagate: bool) -> Any:
        _, task_id, state, value = self.decode(part)
        if state in states.EXCEPTION_STATES:
            value = self.exception_to_python(value)
        if propagate and state in states.PROPAGATE_STATES:
            raise ChordError(f"Dependency {task_id} raised {value!r}") from value
        return value


def _claim(token: str) -> str:
    """Return the suffix of the claim's key: one for all, or the right of one alone."""
    return f".c{token}" if _CLAIMS_NOTHING else ".c"

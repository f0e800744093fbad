"""The worker child's side of a task: a frame comes in, the task runs, an answer goes out.

Frames and answers are opaque to the pool.  A frame is the undecoded body with the headers, in `marshal` format where
all values are plain, else in `pickle` format; its first byte tells.  A large body follows after all that, so that no
copy of it is needed to get at it.  An answer is empty for a plain success.
"""

from __future__ import annotations

import marshal
import pickle
from binascii import a2b_base64
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu.exceptions import DecodeError
from kombu.serialization import loads as loads_body
from kombu.serialization import prepare_accept_content

from celery.app import trace as tracing
from celery.app.trace.errors import pickled
from celery.concurrency.base import bare_exception, exception_info
from celery.exceptions import BackendStoreError, InvalidTaskError, NotRegistered, Reject
from celery.protocol.task import ParsedTask, Unreadable, parse_body
from celery.states import FAILURE, IGNORED, REJECTED, RETRY, SUCCESS
from celery.utils.failpoints import failpoint, is_active
from celery.utils.inflate import MOST_BYTES, inflate
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from celery.app.base import Celery

logger = get_logger(__name__)

#: How everything begins that was pickled by protocol 2 or later; nothing in `marshal` format does.
_PICKLE_CODE = 0x80

#: From this many bytes on, a body goes behind the frame.
LARGE_BODY = 1 << 20

#: Results of tasks that take less than this wait for each other, to be written together.
BRIEF_SECONDS = 0.001

#: Seconds between two lines that say that the store is still away.
TELLS_AGAIN_AFTER = 10.0

#: Whether a test of the tests has switched this protection off.
_GIVES_RESULTS_UP = is_active("unprotect.store")

#: The state of an answer that says: this message cannot be read at all.
MALFORMED = "MALFORMED"


class Frame(NamedTuple):
    """What a child needs to run one request.

    ``body`` is as it came, ``body_encoding`` "base64", "raw" (compressed only) or "" ; ``decoded`` true says that
    ``body`` is already ``(args, kwargs, embed)``.  ``wants_answer`` asks for value and runtime of a success,
    ``is_late`` for stores to be confirmed before the answer.  ``tail`` is how many bytes behind all this are the body,
    0 if it is here.
    """

    name: str
    id: str
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    delivery_info: Mapping[str, Any]
    body: Any
    body_encoding: str
    content_type: str | None
    content_encoding: str | None
    decoded: bool
    wants_answer: bool
    is_late: bool
    tail: int = 0


def pack(frame: tuple[Any, ...]) -> bytes:
    """Return ``frame`` (or an answer) as bytes."""
    try:
        return marshal.dumps(frame)
    except ValueError:  # a date or a Decimal among AMQP headers
        return pickle.dumps(frame, protocol=pickle.HIGHEST_PROTOCOL)


def pack_frame(
    name: str,
    task_id: str,
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    delivery_info: Mapping[str, Any],
    body: Any,
    *others: Any,
) -> bytes:
    """Return a `Frame` of these fields as bytes, its ``tail`` as the size of ``body`` asks."""
    if type(body) in (bytes, memoryview) and len(body) >= LARGE_BODY:
        head = pack((name, task_id, headers, properties, delivery_info, None, *others, len(body)))
        return b"".join((head, body))
    if type(body) is memoryview:
        body = bytes(body)
    return pack((name, task_id, headers, properties, delivery_info, body, *others, 0))


def unpack(data: bytes | memoryview) -> tuple[Any, ...]:
    """Return what `pack` was given."""
    values: tuple[Any, ...] = pickle.loads(data) if data[0] == _PICKLE_CODE else marshal.loads(data)
    return values


class Answer(NamedTuple):
    """How a request ended.

    ``value`` is the value's representation for a success, ``(requeue, representation, traceback)`` for REJECTED, else
    the pickled `ExceptionInfo`; ``runtime`` is in seconds.
    """

    state: str
    value: Any
    runtime: float


class Runner:
    """Runs requests in one child process or thread."""

    def __init__(self, app: Celery, hostname: str | None = None) -> None:
        self.app = app
        self.hostname = hostname
        self._tasks = app.tasks
        self._most_bytes = app.conf.broker_transport_options.get("max_message_bytes", MOST_BYTES)
        self._accept = prepare_accept_content(app.conf.accept_content)
        self._tracers: dict[str, Any] = {}
        backend = app.backend
        backend.defer_confirmations()
        self._confirm, self._try_to_confirm = backend.flush, backend.try_flush
        self._send_held = backend.send_held
        self._is_passing_trouble = backend.is_passing_trouble
        self._share_debts = backend.share_debts
        #: Whether each task has a greenlet of its own, which ends with it.
        self._is_in_greenlets = False
        #: Whether results wait here for a store that did not take them.
        self.owes = False
        #: The last error of a store that was logged, and when.
        self._told: Exception | None = None
        self._told_at = 0.0
        #: Names of tasks that took less than `BRIEF_SECONDS` the last time.
        self._brief: set[str] = set()

    def run(self, data: bytes | memoryview) -> bytes:
        """Run the request in ``data`` and return its answer; errors of a task are answers, too.

        A view is released as soon as it is read.
        """
        (
            name,
            task_id,
            headers,
            properties,
            delivery_info,
            body,
            body_encoding,
            content_type,
            content_encoding,
            decoded,
            wants_answer,
            is_late,
            tail,
        ) = unpack(data)
        if tail:
            body = memoryview(data)[-tail:]
        if type(data) is memoryview:
            data.release()
        failpoint("child.before_run")
        if self._is_in_greenlets:
            self._share_debts(not is_late)
        try:
            if decoded:
                args, kwargs, embed = body
            else:
                compression = headers.get("compression")
                decode = self._decode_large if tail else self._decode
                args, kwargs, embed = decode(body, body_encoding, content_type, content_encoding, compression)
        except Exception as exc:  # serializers have errors of their own
            return pack((MALFORMED, f"{type(exc).__name__}: {exc}", 0.0))
        request = {
            **headers,
            "properties": properties,
            "delivery_info": delivery_info,
            "reply_to": properties.get("reply_to"),
            "correlation_id": properties.get("correlation_id"),
            "hostname": self.hostname,
            "is_eager": False,
            **embed,
        }
        try:
            tracer = self._tracers.get(name) or self._tracer(name)
        except NotRegistered as exc:
            return pack((FAILURE, pickled(exception_info(exc)), 0.0))
        brief = self._brief
        if name not in brief:  # nobody's result waits for a task that may take its time
            self._send_held()
        result = tracer(task_id, args, kwargs, request)
        if result.runtime < BRIEF_SECONDS:
            brief.add(name)
        else:
            brief.discard(name)
        failpoint("child.after_effect")
        if is_late:
            trouble = self._trouble_of(result)
            if trouble is not None:
                return pack((REJECTED, (True, f"its result cannot be stored: {trouble!r}", None), result.runtime))
        if result.info is None:
            if not wants_answer:
                return b""
            retstr = result.retstr or saferepr(result.retval, self._tasks[name].resultrepr_maxsize)
            return pack((SUCCESS, retstr, result.runtime))
        return _answer_of(result)

    def share_debts(self) -> None:
        """From now on, each task has a greenlet of its own: what a store does not take is kept for all of them."""
        self._is_in_greenlets = True

    def flush(self) -> None:
        """Wait until the results stored so far are confirmed; what was refused is logged by task id."""
        if self._is_in_greenlets:
            self._share_debts(True)
        try:
            self._try_to_confirm()
        except Exception as exc:
            self.owes = not _GIVES_RESULTS_UP and self._is_passing_trouble(exc)
            if not self.owes:
                logger.error("Results could not be stored: %s", exc)
            elif str(exc) != str(self._told) or monotonic() > self._told_at + TELLS_AGAIN_AFTER:
                self._told, self._told_at = exc, monotonic()
                logger.error("Results could not be stored yet: %s", exc)
        else:
            self.owes, self._told = False, None

    def _trouble_of(self, result: Any) -> BaseException | None:
        """Wait until the result is safe; return what prevents that for now, so that the task has to run again."""
        if _GIVES_RESULTS_UP:
            self.flush()
            return None
        if result.info is not None and getattr(result.retval, "internal", False):
            error = bare_exception(result.retval)
            return error if self._is_passing_trouble(error) else None
        try:
            self._confirm()
        except Exception as error:
            if self._is_passing_trouble(error):
                return error
            if not isinstance(error, BackendStoreError):
                raise  # nobody knows what is stored
            logger.error("Results could not be stored: %s", error)  # to run it again would not change that
        return None

    def _decode(
        self,
        body: Any,
        body_encoding: str,
        content_type: str | None,
        content_encoding: str | None,
        compression: str | None,
    ) -> tuple[Any, Any, dict[str, Any]]:
        if body_encoding == "base64" or body_encoding == "raw":
            try:
                if body_encoding == "base64":
                    body = a2b_base64(body)
                if compression:  # what is not raw has been decompressed by its transport
                    body = inflate(body, compression, self._most_bytes)
            except Exception as exc:  # each compression has errors of its own
                raise DecodeError(f"the body cannot be decoded: {type(exc).__name__}: {exc}") from exc
        return _checked(loads_body(body, content_type, content_encoding, accept=self._accept))

    def _decode_large(
        self,
        body: memoryview,
        body_encoding: str,
        content_type: str | None,
        content_encoding: str | None,
        compression: str | None,
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Decode what came as a view; it is given up before the next copy is made."""
        try:
            with body:
                data = a2b_base64(body) if body_encoding == "base64" else bytes(body)
        except ValueError as exc:
            raise DecodeError(f"the body cannot be decoded: {type(exc).__name__}: {exc}") from exc
        return self._decode(data, "raw" if compression else "", content_type, content_encoding, compression)

    def _tracer(self, name: str) -> Any:
        """Return the tracer of the task called ``name``, made at its first call here."""
        task = self._tasks[name]
        # Through the package, so that a wrapper put there by a monitoring library is in effect.
        tracer = tracing.build_tracer(name, task, self.app.loader, self.hostname, app=self.app)
        task.__trace__ = self._tracers[name] = tracer
        return tracer


def _checked(body: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return ``(args, kwargs, embed)``, each known to be what it should be.

    Raises:
        InvalidTaskError: it is not; the message says what is wrong.
    """
    if type(body) in (list, tuple) and len(body) == 3:
        args, kwargs, embed = body
        is_plain = type(args) in (list, tuple) and type(kwargs) is dict and type(embed) is dict
        if is_plain and not any(embed.values()):
            return args, kwargs, embed
    parsed = parse_body(ParsedTask("", ""), body)
    if isinstance(parsed, Unreadable):
        raise InvalidTaskError(parsed.reason)
    return body[0], body[1], body[2]


def _answer_of(result: Any) -> bytes:
    info = result.info
    if info.state == REJECTED and isinstance(info.retval, Reject):
        refusal = (bool(info.retval.requeue), repr(info.retval), result.retval.traceback)
        return pack((REJECTED, refusal, result.runtime))
    if info.state == IGNORED:
        return pack((IGNORED, None, result.runtime))
    state = RETRY if info.state == RETRY else FAILURE
    return pack((state, pickled(result.retval), result.runtime))


__all__ = ("MALFORMED", "Answer", "Frame", "Runner", "pack", "pack_frame", "unpack")

"""How records become bytes: serializer, compression, accepted content, exceptions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

from kombu.compression import compress, encoders, get_encoder
from kombu.exceptions import DecodeError, EncodeError
from kombu.serialization import loads, prepare_accept_content, registry
from kombu.utils.json import JSONEncoder
from kombu.utils.json import dumps as kombu_json_dumps

from celery import states
from celery.exceptions import ImproperlyConfigured
from celery.protocol.result import (
    exception_from_record,
    exception_record,
    revive,
    split_compressed,
    wrap_compressed,
)
from celery.result import ResultBase
from celery.utils.inflate import inflate
from celery.utils.serialization import (
    UnpickleableExceptionWrapper,
    get_pickleable_exception,
    get_pickled_exception,
)

__all__ = ("Codec", "ResultTooLarge")

#: How large a record may become when it is decompressed: as large as Redis takes one.
MOST_RECORD_BYTES = 512 * 1024 * 1024

#: How large a stored record may be where ``result_backend_transport_options["max_result_bytes"]`` says nothing.
MOST_RESULT_BYTES = 128 * 1024 * 1024

#: Serializers that can carry an exception as it is.
_CARRY_EXCEPTIONS = frozenset({"pickle"})


class ResultTooLarge(EncodeError, ValueError):
    """A record is over ``result_backend_transport_options["max_result_bytes"]``; it was not stored."""

    @classmethod
    def of(cls, size: int, limit: int) -> ResultTooLarge:
        """Return the error for a record of ``size`` bytes."""
        return cls(
            f"The result takes {size:,} bytes; at most {limit:,} are allowed "
            '(result_backend_transport_options["max_result_bytes"]). Store the data elsewhere and return a reference.'
        )


class Codec:
    """Packs what a backend stores, as the settings ``result_serializer`` and ``result_compression`` say."""

    app: Any
    serializer: str
    accept: Any
    compression: str | None = None

    #: Whether the store can hold bytes of any kind.
    supports_result_compression: bool = False

    def _prepare_codec(self, serializer: str | None, accept: Iterable[str] | None) -> None:
        conf = self.app.conf
        self.serializer = serializer or conf.result_serializer
        self.content_type, self.content_encoding, self.encoder = _encoder_named(self.serializer)
        self._dumps = _quick_encoder(self.encoder)
        if accept is None:
            accept = conf.accept_content if conf.result_accept_content is None else conf.result_accept_content
        self.accept = prepare_accept_content(accept)
        self.compression = self.prepare_compression(conf.result_compression)
        options = conf.result_backend_transport_options or {}
        self.max_result_bytes = int(options.get("max_result_bytes", MOST_RESULT_BYTES))

    def prepare_compression(self, compression: str | None) -> str | None:
        """Return the name of the compression to use, None for none.

        Raises:
            ImproperlyConfigured: kombu knows no compression of that name.
        """
        if not compression:
            return None
        if not self.supports_result_compression:
            warnings.warn(
                f"{type(self).__name__} cannot store compressed results: result_compression changes nothing.",
                stacklevel=2,
            )
            return None
        try:
            get_encoder(compression)
        except KeyError:
            known = ", ".join(sorted(encoders()))
            raise ImproperlyConfigured(f"Unknown result_compression {compression!r}. Known: {known}.") from None
        return compression

    # -- values

    def prepare_value(self, result: Any) -> Any:
        """Return ``result`` in the form that is stored: results of tasks become tuples."""
        if self.serializer != "pickle" and isinstance(result, ResultBase):
            return result.as_tuple()  # type: ignore[attr-defined]  # all but the base have it
        return result

    def encode_result(self, result: Any, state: str) -> Any:
        """Return ``result`` in the form that is stored; an exception becomes a record of it."""
        if state in states.EXCEPTION_STATES and isinstance(result, BaseException):
            return self.prepare_exception(result)
        return self.prepare_value(result)

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """Return ``exc`` in the form that ``serializer`` can carry."""
        serializer = self.serializer if serializer is None else serializer
        if serializer in _CARRY_EXCEPTIONS:
            return get_pickleable_exception(exc)
        record = exception_record(exc, self.encode if serializer == self.serializer else _encoder_named(serializer)[2])
        record["exc_message"] = tuple(record["exc_message"])
        return record

    def exception_to_python(self, exc: Any) -> Any:
        """Return the exception that was stored as ``exc``; see ``celery.protocol.result``."""
        if isinstance(exc, BaseException):
            return get_pickled_exception(exc) if self.serializer in _CARRY_EXCEPTIONS else exc
        return exception_from_record(exc)

    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Make the exception in ``meta`` an exception object again."""
        meta = revive(meta)
        if isinstance(meta["result"], UnpickleableExceptionWrapper) and self.serializer in _CARRY_EXCEPTIONS:
            meta["result"] = get_pickled_exception(meta["result"])
        return meta

    # -- records

    def encode(self, data: Any) -> Any:
        """Return ``data`` as text or bytes, compressed if so configured.

        Raises:
            ResultTooLarge: it is over ``max_result_bytes``.
            kombu.exceptions.EncodeError: the serializer cannot carry it.
        """
        _, encoding, payload = self._encode(data)
        if self.compression is not None:
            if isinstance(payload, str):
                payload = payload.encode(encoding if encoding != "binary" else "utf-8")
            payload = wrap_compressed(*compress(payload, self.compression))
        if len(payload) > self.max_result_bytes:
            raise ResultTooLarge.of(len(payload), self.max_result_bytes)
        return payload

    def _encode(self, data: Any) -> tuple[str, str, Any]:
        try:
            return self.content_type, self.content_encoding, self._dumps(data)
        except EncodeError:
            raise
        except Exception as error:  # whatever a serializer raises at what it cannot carry
            raise EncodeError(error) from error

    def decode(self, payload: Any) -> Any:
        """Return what was encoded as ``payload``.

        Raises:
            kombu.exceptions.ContentDisallowed: the serializer is not accepted.
            kombu.exceptions.DecodeError: it was written by another serializer, or it is damaged.
        """
        if payload is None:
            return payload
        compressed = split_compressed(payload)
        if compressed is not None:
            payload = _inflated(*compressed)
        if isinstance(payload, str) and self.content_encoding == "binary":
            payload = payload.encode()
        return loads(
            payload, content_type=self.content_type, content_encoding=self.content_encoding, accept=self.accept
        )

    def decode_result(self, payload: Any) -> dict[str, Any]:
        """Return the record in ``payload``, with an exception object where there was one."""
        return self.meta_from_decoded(self.decode(payload))


def _inflated(body: bytes, content_type: str) -> bytes:
    try:
        return inflate(body, content_type, MOST_RECORD_BYTES)
    except Exception as error:  # each compression has errors of its own
        raise DecodeError(f"a compressed record cannot be read: {error}") from error


def _encoder_named(serializer: str) -> tuple[str, str, Callable[[Any], Any]]:
    try:
        return registry._encoders[serializer]  # kombu has no public way to look one up
    except KeyError:
        known = ", ".join(sorted(registry._encoders))
        raise ImproperlyConfigured(f"Unknown result_serializer {serializer!r}. Known: {known}.") from None


def _quick_encoder(encoder: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return an encoder that gives the same; kombu's for JSON is built anew on every call."""
    return JSONEncoder().encode if encoder is kombu_json_dumps else encoder

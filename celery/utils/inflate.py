"""Decompress what a stranger has sent, and no more of it than was agreed."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from kombu import compression as _kombu

from celery.utils.failpoints import is_active

__all__ = ("MOST_BYTES", "TooMuch", "inflate")

#: How large a body may become where nobody says otherwise.
MOST_BYTES = 128 * 1024 * 1024

_is_unbounded = is_active("unprotect.bomb")


class TooMuch(ValueError):
    """Decompressed, the data would be larger than allowed; it was not decompressed."""


def _gzip(data: bytes, most: int) -> bytes:
    return _ended(zlib.decompressobj(), data, most)


def _bzip2(data: bytes, most: int) -> bytes:
    return _ended(bz2.BZ2Decompressor(), data, most)


def _lzma(data: bytes, most: int) -> bytes:
    return _ended(lzma.LZMADecompressor(), data, most)


def _ended(decompressor: Any, data: bytes, most: int) -> bytes:
    """Return all of ``data``; at most ``most`` bytes, and one to see that there are more."""
    text: bytes = decompressor.decompress(data, most + 1)
    if len(text) <= most and not decompressor.eof:
        raise ValueError("the compressed data is cut off")
    return text


def _zstandard(data: bytes, most: int) -> bytes:
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(data) as reader:
        pieces, left = [], most + 1
        while left > 0 and (piece := reader.read(min(left, 1 << 20))):
            pieces.append(piece)
            left -= len(piece)
    return b"".join(pieces)


_BOUNDED: dict[str, Callable[[bytes, int], bytes]] = {
    "application/x-gzip": _gzip,
    "application/x-bz2": _bzip2,
    "application/x-lzma": _lzma,
    "application/zstd": _zstandard,
}


def inflate(data: bytes, compression: str, most_bytes: int = MOST_BYTES) -> bytes:
    """Return ``data`` decompressed; ``compression`` is a content type or a name that kombu knows.

    A kind that is not known to be bounded (brotli, a user's own) is decompressed as it is, then measured.

    Raises:
        TooMuch: it would be more than ``most_bytes``.
        ValueError: there is no such compression.  Damaged data raises what its library raises.
    """
    if not isinstance(compression, str):
        raise ValueError(f"the compression is no name: {compression!r:.100}")
    content_type = _kombu._aliases.get(compression, compression)
    bounded = _BOUNDED.get(content_type)
    if bounded is not None and not _is_unbounded:
        text = bounded(data, most_bytes)
    elif content_type in _kombu._decoders:
        text = _kombu.decompress(data, content_type)
    else:
        raise ValueError(f"unknown compression {compression!r:.100}")
    if len(text) > most_bytes and not _is_unbounded:
        raise TooMuch(f"decompressed, the body is larger than {most_bytes:,} bytes")
    return text

"""Results as files: ``file:///path/to/directory``, one file a record, named like the keys of other stores."""

from __future__ import annotations

import errno
import locale
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

from kombu.utils.encoding import ensure_bytes

from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import ImproperlyConfigured

__all__ = ("FilesystemBackend",)

_UNWRITABLE = "result_backend: cannot write to the directory {path}: {error}. It must exist and be writable."
#: What says that this record cannot be a file, however well the directory is.
_REFUSALS = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.EISDIR})
_NO_PATH = "result_backend: the filesystem backend needs a directory, as in file:///var/lib/celery/results"


class FilesystemBackend(KeyValueStoreBackend):
    """Results in a directory that clients and workers share.

    A record appears at once and whole: it is written beside and then renamed.  Only the owner can read it.
    """

    supports_result_compression = True

    def __init__(
        self,
        url: str | None = None,
        open: Callable[..., Any] = open,
        unlink: Callable[..., Any] = os.unlink,
        sep: str = os.sep,
        encoding: str = locale.getpreferredencoding(False),
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.thread_safe = True
        self.url = url
        path = _directory(url)
        self.path = path.encode(encoding)
        self.sep = sep.encode(encoding)
        self.open = open
        self.unlink = unlink
        self._check_directory()

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> tuple[Any, ...]:
        return super().__reduce__(args, {"url": self.url, **(kwargs or {})})

    def _check_directory(self) -> None:
        """Write a file and delete it, so that a wrong path is known at the start and not when a task has run."""
        try:
            probe, name = tempfile.mkstemp(prefix=b".celery-probe-", dir=self.path)
            os.close(probe)
            self.unlink(name)
        except OSError as error:
            path = os.fsdecode(self.path)
            raise ImproperlyConfigured(_UNWRITABLE.format(path=path, error=error.strerror or error)) from error

    def _filename(self, key: Any) -> bytes:
        """Return the file of a key; an id with a path in it finds no file outside of the directory."""
        name = ensure_bytes(key)
        if self.sep in name or b"/" in name or b"\x00" in name:
            raise ValueError(f"{os.fsdecode(name)!r} cannot be the name of a record: it holds a path")
        return self.sep.join((self.path, name))

    def is_passing_trouble(self, exc: BaseException) -> bool:
        """The disk is full or read-only, or the directory is not there now: somebody will mend that."""
        return isinstance(exc, OSError) and exc.errno not in _REFUSALS

    def get(self, key: Any) -> Any:
        try:
            with self.open(self._filename(key), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def set(self, key: Any, value: Any) -> None:
        filename = self._filename(key)
        descriptor, temporary = tempfile.mkstemp(prefix=b".celery-new-", dir=self.path)  # mode 0600
        try:
            with self.open(descriptor, "wb") as file:
                file.write(ensure_bytes(value) if not isinstance(value, int) else b"%d" % value)
            os.replace(temporary, filename)
        except BaseException:
            with suppress(OSError):
                self.unlink(temporary)
            raise

    def mget(self, keys: list[Any]) -> list[Any]:
        return [self.get(key) for key in keys]

    def delete(self, key: Any) -> None:
        with suppress(FileNotFoundError):
            self.unlink(self._filename(key))

    def cleanup(self) -> None:
        """Delete the records that are older than ``result_expires``, and what interrupted writers left."""
        expires = self.expires.total_seconds() if isinstance(self.expires, timedelta) else self.expires
        if not expires:
            return
        oldest = time.time() - expires
        prefixes = (self.task_keyprefix, self.group_keyprefix, self.chord_keyprefix, b".celery-new-")
        for entry in os.scandir(self.path):
            if not entry.name.startswith(prefixes):
                continue
            with suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < oldest:
                    self.unlink(entry.path)


def _directory(url: str | None) -> str:
    """Return the directory that a URL names."""
    if not url:
        raise ImproperlyConfigured(_NO_PATH)
    for prefix in ("file://localhost/", "file:///"):
        if url.startswith(prefix):
            return unquote("/" + url[len(prefix) :])
    path = url.removeprefix("file://")
    if not path or (path.startswith("/") is False and url.startswith("file://")):
        raise ImproperlyConfigured(_NO_PATH)
    return path

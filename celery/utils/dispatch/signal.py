"""Signals: who wants to know is called when something happens.

``signal.receivers`` is falsy while nobody listens, so a caller that has to gather arguments may look there first.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ("Signal",)

#: What ``connect`` may be given beside the receiver.
_CONNECT_OPTIONS = frozenset(("sender", "weak", "dispatch_uid", "retry"))


def _make_id(target: Any) -> Any:
    """Return what tells ``target`` from others: for a bound method both object and function count."""
    if hasattr(target, "__func__"):
        return (id(target.__self__), id(target.__func__))
    if isinstance(target, (str, bytes, int)):
        return target
    return id(target)


def _real(sender: Any) -> Any:
    """Return the object itself where a promise (a task not yet made) is given."""
    if hasattr(sender, "__maybe_evaluate__"):
        return sender.__maybe_evaluate__()
    return sender


class Signal:
    """Keeps receivers and calls them.

    ``providing_args`` names the arguments that receivers get; it is documentation.  ``use_caching`` keeps the list of
    receivers for each sender, which must be hashable and weakly referable then.
    """

    #: ``((receiver id, sender id), receiver or weak reference, sender id)``; replaced, never changed in place
    receivers: Any = None

    def __init__(self, providing_args: Any = None, use_caching: bool = False, name: str | None = None) -> None:
        self.receivers = []
        self.providing_args = set(providing_args or ())
        self.lock = threading.RLock()
        self.use_caching = use_caching
        self.name = name
        self.sender_receivers_cache: Any = weakref.WeakKeyDictionary() if use_caching else {}

    # -- connecting

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Connect a receiver: ``signal.connect(f, sender=None, weak=True, dispatch_uid=None, retry=False)``.

        Without a receiver it returns a decorator.  ``sender`` limits the calls to one sender.  A receiver is held
        weakly unless ``weak`` is false.  A second receiver with the same ``dispatch_uid`` is not connected.
        With ``retry`` the receiver is called again, with growing pauses, until it does not raise.
        """
        if unknown := kwargs.keys() - _CONNECT_OPTIONS:
            raise TypeError(f"connect() got unexpected arguments: {', '.join(sorted(unknown))}")
        if len(args) > 1:
            raise TypeError("connect() takes one positional argument, the receiver; pass others by name")
        if args and args[0] is not None:
            return self._connect(args[0], **kwargs)

        def connect_receiver(receiver: Any) -> Any:
            self._connect(receiver, **kwargs)
            return receiver

        return connect_receiver

    def _connect(
        self, receiver: Any, sender: Any = None, weak: bool = True, dispatch_uid: Any = None, retry: bool = False
    ) -> Any:
        if not callable(receiver):
            raise TypeError(f"a signal receiver must be callable, not {receiver!r}")
        if not _accepts_kwargs(receiver):
            raise ValueError(f"Signal receiver must accept keyword arguments: {receiver!r} has no **kwargs.")
        _connect_when_made(self, receiver, sender, weak, dispatch_uid, retry)
        return receiver

    def _add(self, receiver: Any, sender: Any, weak: bool, dispatch_uid: Any, retry: bool) -> None:
        sender_id = None if sender is None else _make_id(sender)
        key = (_make_id(receiver) if dispatch_uid is None else dispatch_uid, sender_id)
        if retry:
            # the wrapper lives in our list only, and holds the receiver as it was asked to
            entry: Any = _Retrying(self, key, _reference(receiver, self._forget) if weak else receiver, weak)
        else:
            entry = _reference(receiver, self._forget) if weak else receiver
        with self.lock:
            if any(known == key for known, _ in self.receivers):
                return
            self.receivers = [*self.receivers, (key, entry)]
            self.sender_receivers_cache.clear()

    def disconnect(
        self, receiver: Any = None, sender: Any = None, weak: bool | None = None, dispatch_uid: Any = None
    ) -> bool:
        """Disconnect a receiver, or what was connected with ``dispatch_uid``; say whether it was there.

        ``sender`` must be that of ``connect``; ``weak`` is not needed any more.
        """
        if weak is not None:
            import warnings

            warnings.warn("Passing `weak` to disconnect has no effect.", DeprecationWarning, stacklevel=2)
        sender = _real(sender)
        key = (
            _make_id(receiver) if dispatch_uid is None else dispatch_uid,
            None if sender is None else _make_id(sender),
        )
        with self.lock:
            kept = [entry for entry in self.receivers if entry[0] != key]
            found = len(kept) < len(self.receivers)
            self.receivers = kept
            self.sender_receivers_cache.clear()
        return found

    def _forget(self, reference: Any) -> None:
        """Drop entries whose receiver is gone."""
        with self.lock:
            self.receivers = [entry for entry in self.receivers if not _is_dead(entry[1])]
            self.sender_receivers_cache.clear()

    # -- sending

    def has_listeners(self, sender: Any = None) -> bool:
        """Say whether anybody would be called for ``sender``."""
        return bool(self.receivers) and bool(self._live_receivers(_real(sender)))

    def send(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        """Call the receivers; return ``[(receiver, answer)]``, where an exception that was raised is the answer.

        Errors are logged.  They stop neither other receivers nor the sender.
        """
        if not self.receivers:
            return []
        responses: list[tuple[Any, Any]] = []
        for receiver in self._live_receivers(sender):
            try:
                answer: Any = receiver(signal=self, sender=sender, **named)
            except Exception as error:
                _log_failure(receiver, error)
                answer = error
            responses.append((receiver, answer))
        return responses

    send_robust = send

    def _live_receivers(self, sender: Any) -> list[Any]:
        entries = self._cached_entries(sender) if self.use_caching else self._entries_for(sender)
        receivers = [entry() if isinstance(entry, weakref.ref) else entry for entry in entries]
        return [receiver for receiver in receivers if receiver is not None]

    def _entries_for(self, sender: Any) -> list[Any]:
        sender_id = None if sender is None else _make_id(sender)
        return [entry for (_, wanted), entry in self.receivers if wanted is None or wanted == sender_id]

    def _cached_entries(self, sender: Any) -> list[Any]:
        try:
            entries: list[Any] = self.sender_receivers_cache[sender]
        except KeyError:
            entries = self.sender_receivers_cache[sender] = self._entries_for(sender)
        except TypeError:  # not hashable, or nothing to refer to weakly
            entries = self._entries_for(sender)
        return entries

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name} providing_args={self.providing_args!r}>"

    __str__ = __repr__

    def __reduce__(self) -> tuple[type[Signal], tuple[Any, ...]]:
        # receivers are of this process and a lock cannot travel
        return type(self), (self.providing_args, self.use_caching, self.name)


def _connect_when_made(signal: Signal, receiver: Any, sender: Any, weak: bool, dispatch_uid: Any, retry: bool) -> None:
    """Connect now, or, where the sender is a promise, once it is made."""
    if hasattr(sender, "__evaluated__") and not sender.__evaluated__():
        sender.__then__(lambda *_: signal._add(receiver, _real(sender), weak, dispatch_uid, retry))
    else:
        signal._add(receiver, _real(sender), weak, dispatch_uid, retry)


def _reference(receiver: Any, callback: Callable[[Any], None]) -> Any:
    if hasattr(receiver, "__self__") and hasattr(receiver, "__func__"):
        return weakref.WeakMethod(receiver, callback)
    return weakref.ref(receiver, callback)


def _is_dead(entry: Any) -> bool:
    reference = entry.receiver if isinstance(entry, _Retrying) else entry
    return isinstance(reference, weakref.ref) and reference() is None


def _accepts_kwargs(function: Any) -> bool:
    from celery.utils.functional import fun_accepts_kwargs

    try:
        return fun_accepts_kwargs(function)
    except (TypeError, ValueError):  # nothing known: let it try
        return True


def _log_failure(receiver: Any, error: Exception) -> None:
    from celery.utils.log import get_logger

    get_logger("celery.utils.dispatch.signal").exception("Signal handler %r raised: %r", receiver, error)


class _Retrying:
    """Calls a receiver until it does not raise; stays connected meanwhile."""

    def __init__(self, signal: Signal, key: Any, receiver: Any, is_weak: bool) -> None:
        self.signal = signal
        self.key = key
        self.receiver = receiver
        self.is_weak = is_weak

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from kombu.utils.functional import retry_over_time

        receiver = self.receiver() if self.is_weak else self.receiver
        if receiver is None:
            return None

        def on_error(error: Exception, intervals: Any, retries: int) -> float:
            interval: float = next(intervals)
            _log_failure(receiver, error)
            return interval

        return retry_over_time(receiver, Exception, args, kwargs, on_error)

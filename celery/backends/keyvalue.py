"""Records under keys, for stores that know nothing but keys and values."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

from kombu.utils.encoding import bytes_to_str, ensure_bytes

from celery import states
from celery.backends.backend import Backend, may_come_late, outlasts, within
from celery.backends.chords import CountedChords
from celery.backends.polling import pauses
from celery.exceptions import BackendStoreError, TimeoutError
from celery.protocol.result import pending_meta
from celery.result import result_from_tuple

__all__ = ("CHUNK_SIZE", "BaseKeyValueStoreBackend")

#: How many records are read with one command.
CHUNK_SIZE = 500


class BaseKeyValueStoreBackend(CountedChords, Backend):
    """Records under keys; a subclass says how to get, set and delete one.

    The setting ``result_backend_transport_options["global_keyprefix"]`` is put in front of all keys.
    """

    #: Makes a key of text what the store takes.
    key_t: Any = ensure_bytes
    task_keyprefix: Any = "celery-task-meta-"
    group_keyprefix: Any = "celery-taskset-meta-"
    chord_keyprefix: Any = "chord-unlock-"
    #: Whether there is ``incr``, which chords count with.
    implements_incr = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if hasattr(self.key_t, "__func__"):
            self.key_t = self.key_t.__func__  # a function that a subclass gave: it is no method
        self._add_global_keyprefix()
        self.task_keyprefix = self.key_t(self.task_keyprefix)
        self.group_keyprefix = self.key_t(self.group_keyprefix)
        self.chord_keyprefix = self.key_t(self.chord_keyprefix)

    def _add_global_keyprefix(self) -> None:
        prefix = (self.app.conf.result_backend_transport_options or {}).get("global_keyprefix")
        if not prefix:
            return
        if not prefix.endswith((".", "_", ":", "-")):
            prefix += "_"
        self.task_keyprefix = prefix + bytes_to_str(self.task_keyprefix)
        self.group_keyprefix = prefix + bytes_to_str(self.group_keyprefix)
        self.chord_keyprefix = prefix + bytes_to_str(self.chord_keyprefix)

    @property
    def chord_expires(self) -> Any:
        """Seconds for which what counts a chord is kept."""
        configured = self.app.conf.result_chord_expires
        if configured is None:
            return self.expires
        return configured.total_seconds() if isinstance(configured, timedelta) else configured

    # what a store gives

    def get(self, key: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say how to get a key")

    def mget(self, keys: list[Any]) -> Any:
        raise NotImplementedError("Does not support get_many")

    def set(self, key: Any, value: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say how to set a key")

    def delete(self, key: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say how to delete a key")

    def incr(self, key: Any) -> Any:
        raise NotImplementedError("Does not implement incr")

    def expire(self, key: Any, value: Any) -> Any:
        """Let a key end in ``value`` seconds, where the store can do that."""

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        """Set a record; stores whose keys live differently long look at ``state``."""
        return self.set(key, value)

    # keys

    def _key(self, prefix: Any, id: Any, suffix: Any) -> Any:
        return prefix + self.key_t(id) + self.key_t(suffix)

    def get_key_for_task(self, task_id: str, key: str = "") -> Any:
        if not task_id:
            raise ValueError(f"task_id must not be empty. Got {task_id} instead.")
        return self._key(self.task_keyprefix, task_id, key)

    def get_key_for_group(self, group_id: str, key: str = "") -> Any:
        if not group_id:
            raise ValueError(f"group_id must not be empty. Got {group_id} instead.")
        return self._key(self.group_keyprefix, group_id, key)

    def get_key_for_chord(self, group_id: str, key: str = "") -> Any:
        if not group_id:
            raise ValueError(f"group_id must not be empty. Got {group_id} instead.")
        return self._key(self.chord_keyprefix, group_id, key)

    # records

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if may_come_late(task_id, state, request):
            current = self._get_task_meta_for(task_id)
            if outlasts(current["status"], state):
                return result  # a late loser does not overwrite it
        meta = self._make_meta(task_id, result, state, traceback, request)
        try:
            self._set_with_state(self.get_key_for_task(task_id), self.encode(meta), state)
        except BackendStoreError as error:
            raise BackendStoreError(str(error), state=state, task_id=task_id) from error
        return result

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        payload = self.get(self.get_key_for_task(task_id))
        return self.decode_result(payload) if payload else pending_meta()

    def task_result_exists(self, task_id: str) -> bool:
        return bool(self.get(self.get_key_for_task(task_id)))

    def _forget(self, task_id: str) -> None:
        self.delete(self.get_key_for_task(task_id))

    def get_task_metas(self, task_ids: list[str]) -> dict[str, dict[str, Any]]:
        found = {task_id: self._cache[task_id] for task_id in task_ids if task_id in self._cache}
        found.update(self._read_many([task_id for task_id in task_ids if task_id not in found]))
        return found

    def _read_many(self, task_ids: list[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(task_ids), CHUNK_SIZE):
            chunk = task_ids[start : start + CHUNK_SIZE]
            keys = [self.get_key_for_task(task_id) for task_id in chunk]
            values = self.mget(keys)
            if hasattr(values, "items"):  # a mapping of those that are there
                values = [values.get(key) for key in keys]
            found.update(
                (task_id, self.decode_result(value)) for task_id, value in zip(chunk, values, strict=True) if value
            )
        return found

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(id, record)`` of each task as it ends.

        Raises:
            TimeoutError: not all have ended within ``timeout`` seconds.
        """
        interval = 0.5 if interval is None else interval
        waiting = list(dict.fromkeys(task_ids))
        deadline = None if timeout is None else time.monotonic() + timeout
        for iteration, pause in enumerate(pauses(interval), 1):
            with within(deadline):
                metas = self.get_task_metas(waiting) if waiting else {}
            for task_id in waiting:
                meta = metas.get(task_id)
                if meta is not None and meta["status"] in READY_STATES:
                    if on_message is not None:
                        on_message(meta)
                    self._cache[task_id] = meta
                    yield task_id, meta
                else:
                    metas.pop(task_id, None)
            waiting = [task_id for task_id in waiting if task_id not in metas]
            if not waiting or (max_iterations is not None and iteration >= max_iterations):
                return
            if on_interval is not None:
                on_interval()
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"Operation timed out ({timeout})")
            time.sleep(min(pause, left))

    # groups

    def _save_group(self, group_id: str, result: Any) -> Any:
        self._set_with_state(
            self.get_key_for_group(group_id), self.encode({"result": result.as_tuple()}), states.SUCCESS
        )
        return result

    def _delete_group(self, group_id: str) -> None:
        self.delete(self.get_key_for_group(group_id))

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        payload = self.get(self.get_key_for_group(group_id))
        if not payload:
            return None
        meta = self.decode(payload)
        meta["result"] = result_from_tuple(meta["result"], self.app)
        return meta

"""What every store for results promises, and the parts they are made of.

Backend                      records, groups, retries; packed by ``codec``, chords by ``chords``
  BaseBackend                and waiting by looking again and again
  BaseKeyValueStoreBackend   records under keys
    KeyValueStoreBackend     and waiting by looking again and again
  DisabledBackend            says that there is no store
"""

from __future__ import annotations

from typing import Any

from celery._state import get_current_task as get_current_task  # stores of others import it from here
from celery.backends.backend import Backend, unpickle_backend
from celery.backends.keyvalue import BaseKeyValueStoreBackend
from celery.backends.pending import pending_results_t
from celery.backends.polling import SyncBackendMixin

__all__ = ("BaseBackend", "KeyValueStoreBackend", "DisabledBackend")

for _name in (Backend, BaseKeyValueStoreBackend, SyncBackendMixin, pending_results_t, unpickle_backend):
    _name.__module__ = __name__  # pickles and reprs name the door
del _name


class BaseBackend(Backend, SyncBackendMixin):
    """Base of stores that cannot notify."""


BaseDictBackend = BaseBackend  # Upstream: the old name, which django-celery-results uses


class KeyValueStoreBackend(BaseKeyValueStoreBackend, SyncBackendMixin):
    """Base of key-value stores that cannot notify."""


class DisabledBackend(BaseBackend):
    """What there is when ``result_backend`` is not set: nothing is stored, and reading says so."""

    _cache: Any = {}

    def store_result(self, *args: Any, **kwargs: Any) -> None:
        """Drop it."""

    def mark_as_revoked_ahead(self, task_id: str) -> None:
        """Nobody can wait for it."""

    def ensure_chords_allowed(self) -> None:
        raise NotImplementedError(
            "Starting chords requires a result backend to be configured: set result_backend. "
            "A group chained with a task is a chord too. Redis, databases, memcached and more can do chords."
        )

    def _is_disabled(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            "No result backend is configured, so there is no state and no result to read: set result_backend "
            "(for example Celery(..., backend='redis://localhost') or backend='rpc://')."
        )

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        return "disabled://"

    get_state = get_status = get_result = get_traceback = _is_disabled
    get_task_meta_for = wait_for = get_many = _is_disabled
    get_task_meta = get_task_metas = _get_task_meta_for = _is_disabled
    wait_for_pending = iter_native = task_result_exists = _is_disabled
    save_group = restore_group = delete_group = _forget = _is_disabled

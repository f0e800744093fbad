"""The result of a task that ran in this process, at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from celery import states
from celery._state import app_or_default
from celery.exceptions import TaskRevokedError
from celery.result.joining import assert_will_not_block
from celery.result.single import AsyncResult, R

__all__ = ("EagerResult",)


class EagerResult(AsyncResult[R]):
    """What ``task.apply()`` returns: value or exception, and state."""

    def __init__(
        self, id: str, ret_value: Any, state: str, traceback: str | None = None, name: str | None = None
    ) -> None:
        self.id = id
        self._result = ret_value
        self._state = state
        self._traceback = traceback
        self._name = name

    @cached_property
    def app(self) -> Any:  # found late, and seldom needed
        return app_or_default()

    def then(self, callback: Callable[..., Any], on_error: Callable[..., Any] | None = None, weak: bool = False) -> Any:
        """Call ``callback(result)`` now; ``weak`` makes no difference."""
        return self.on_ready.then(callback, on_error)

    @property
    def _cache(self) -> dict[str, Any]:  # type: ignore[override]  # there is nothing to wait for
        return {
            "task_id": self.id,
            "result": self._result,
            "status": self._state,
            "traceback": self._traceback,
            "name": self._name,
        }

    def _get_task_meta(self) -> dict[str, Any]:
        return self._cache

    def get(  # type: ignore[override]  # no arguments about waiting by position: there is no wait
        self,
        timeout: float | None = None,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        **kwargs: Any,
    ) -> R:
        """Return the value or raise the exception; there is no wait, so the arguments about waiting change nothing."""
        if disable_sync_subtasks:
            assert_will_not_block()
        if self._state == states.SUCCESS:
            return self._result
        if self._state in states.PROPAGATE_STATES:
            if not propagate:
                return self._result
            raise self._result if isinstance(self._result, BaseException) else Exception(self._result)
        return None  # type: ignore[return-value]  # not ended, or ended without a value

    wait = get  # type: ignore[assignment]  # see above

    def ready(self) -> bool:
        return True

    def exists(self) -> bool:
        return True

    def forget(self) -> None:
        """Do nothing: no store knows of this task."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Call it revoked."""
        self._state = states.REVOKED
        self._result = TaskRevokedError("revoked")

    @property
    def result(self) -> Any:
        return self._result

    info = result

    @property
    def state(self) -> str:
        return self._state

    status = state

    @property
    def traceback(self) -> str | None:
        return self._traceback

    @property
    def supports_native_join(self) -> bool:
        return False

    def __copy__(self) -> EagerResult[R]:
        return self.__class__(*self.__reduce_args__())

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, self.__reduce_args__()

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self._result, self._state, self._traceback, self._name

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"

"""For test programs against running workers: wait for results and for what `inspect` says of tasks."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

from kombu.utils.functional import retry_over_time

from celery import states
from celery.exceptions import TimeoutError
from celery.result import ResultSet
from celery.utils.text import truncate

__all__ = ("Manager", "ManagerMixin", "Sentinel")

#: Stages in which a worker has a task, in the words of `query_task`.
_ACCEPTED = ("active", "ready")
_RECEIVED = ("reserved", "scheduled", *_ACCEPTED)

_IN_PROGRESS = frozenset({states.RECEIVED, states.STARTED, states.RETRY})


class Sentinel(Exception):
    """What was waited for did not come true."""


class ManagerMixin:
    """The tools; `_init_manager` is to be called first."""

    app: Any
    stdout: Any
    stderr: Any
    #: Errors after which an answer is asked for again.
    connerrors: tuple[type[BaseException], ...]
    #: Seconds for which `join` waits at most.
    block_timeout: float
    #: Whether `join` does nothing.
    no_join: bool

    def _init_manager(
        self, block_timeout: float = 30 * 60.0, no_join: bool = False, stdout: Any = None, stderr: Any = None
    ) -> None:
        self.stdout = sys.stdout if stdout is None else stdout
        self.stderr = sys.stderr if stderr is None else stderr
        connection = self.app.connection()
        self.connerrors = (*connection.recoverable_connection_errors, *connection.recoverable_channel_errors, OSError)
        self.block_timeout = block_timeout
        self.no_join = no_join

    def remark(self, s: str, sep: str = "-") -> None:
        """Write a line to the output."""
        print(f"{sep}{s}", file=self.stdout)

    def warn(self, s: str) -> None:
        """Write a line to the error output."""
        print(s, file=self.stderr)

    # -- waiting

    def wait_for(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        errback: Callable[..., Any] | None = None,
        max_retries: int = 10,
        interval_start: float = 0.1,
        interval_step: float = 0.5,
        interval_max: float = 5.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> Any:
        """Call ``fun`` until it raises none of ``catch``, and return its value; the last error is raised.

        ``emit_warning`` tells each failure, ``errback(exc, interval, retries)`` hears of it too.
        """

        def on_error(exc: BaseException, interval: Iterator[float], retries: int) -> float:
            seconds = next(interval)
            if emit_warning:
                self.warn(f"Still waiting for {desc}.  Trying again in {seconds:.2f} seconds: {exc!r}")
            if errback is not None:
                errback(exc, seconds, retries)
            return seconds

        return self.retry_over_time(
            fun,
            catch,
            args=args,
            kwargs=kwargs,
            errback=on_error,
            max_retries=max_retries,
            interval_start=interval_start,
            interval_step=interval_step,
            interval_max=interval_max,
            **options,
        )

    def ensure_not_for_a_while(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        max_retries: int = 20,
        interval_start: float = 0.1,
        interval_step: float = 0.02,
        interval_max: float = 1.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> Any:
        """Call ``fun`` again and again while it raises one of ``catch``: return ``None`` if it always did.

        What has happened after all is returned.
        """
        try:
            return self.wait_for(
                fun,
                catch,
                desc=desc,
                max_retries=max_retries,
                interval_start=interval_start,
                interval_step=interval_step,
                interval_max=interval_max,
                emit_warning=emit_warning,
                **options,
            )
        except catch:
            return None

    def retry_over_time(self, *args: Any, **kwargs: Any) -> Any:
        """Upstream: kombu's function of that name."""
        return retry_over_time(*args, **kwargs)

    def true_or_raise(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what ``fun`` returns.

        Raises:
            Sentinel: that is not true.
        """
        value = fun(*args, **kwargs)
        if not value:
            raise Sentinel
        return value

    # -- results

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **kwargs: Any) -> None:
        """Wait for a result, or for all of a group, at most ``block_timeout`` seconds and over lost connections.

        Raises:
            AssertionError: some did not come in; the text names them.
        """
        if self.no_join:
            return
        results = r if isinstance(r, ResultSet) else self.app.ResultSet([r])
        for tries in count(1):
            try:
                results.get(**{"timeout": self.block_timeout, "propagate": propagate, **kwargs})
                return
            except TimeoutError as error:  # ours
                missing = self.missing_results(results)
                self.warn(f"Still waiting for {len(missing)}/{len(results)}: {truncate(', '.join(missing))}: {error!r}")
            except self.connerrors as error:
                self.warn(f"The connection was lost while results came in: {error!r}")
            if tries >= max_retries:
                raise AssertionError(f"missing results: {', '.join(self.missing_results(results))}")

    def missing_results(self, r: Iterable[Any]) -> list[str]:
        """Return the ids of the results that are not there yet."""
        return [result.id for result in r if not result.ready()]

    def wait_until_idle(self) -> None:
        """Wait until no worker runs a task."""
        while any((self.inspect().active() or {}).values()):
            self.warn("Waiting until the workers are idle.")

    # -- what workers say

    def inspect(self, timeout: float = 3.0) -> Any:
        """Return questions to the workers, answered within ``timeout`` seconds."""
        return self.app.control.inspect(timeout=timeout)

    def query_tasks(self, ids: Iterable[str], timeout: float = 0.5) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(node, {id: [stage, details]})`` of each worker that has some of the tasks; they have ``timeout``
        seconds to answer.
        """
        yield from (self.inspect(timeout).query_task(list(ids)) or {}).items()

    def query_task_states(self, ids: Iterable[str], timeout: float = 0.5) -> dict[str, set[str]]:
        """Return ``{stage: ids}`` of the tasks that workers have."""
        found: dict[str, set[str]] = defaultdict(set)
        for _, tasks in self.query_tasks(ids, timeout):
            for task_id, (stage, _details) in tasks.items():
                found[stage].add(task_id)
        return found

    def is_received(self, ids: Iterable[str], **kwargs: Any) -> bool:
        """Return whether workers have all of the tasks."""
        return self._are_in(_RECEIVED, ids, **kwargs)

    def is_accepted(self, ids: Iterable[str], **kwargs: Any) -> bool:
        """Return whether workers run all of the tasks."""
        return self._are_in(_ACCEPTED, ids, **kwargs)

    def _are_in(self, stages: Iterable[str], ids: Iterable[str], **kwargs: Any) -> bool:
        found = self.query_task_states(ids, **kwargs)
        return set(ids) <= {task_id for stage in stages for task_id in found.get(stage, ())}

    @staticmethod
    def is_result_task_in_progress(results: Iterable[Any], **kwargs: Any) -> bool:
        """Return whether each of the tasks has been taken by a worker, or has ended."""
        return all(result.state in _IN_PROGRESS or result.ready() for result in results)

    # -- claims: true in the end, or `Sentinel`; ``interval`` is seconds that workers have to answer one question

    def assert_accepted(
        self, ids: Iterable[str], interval: float = 0.5, desc: str = "waiting for tasks to be accepted", **policy: Any
    ) -> Any:
        """Wait until workers run all of the tasks."""
        return self.assert_task_worker_state(self.is_accepted, ids, interval=interval, desc=desc, **policy)

    def assert_received(
        self, ids: Iterable[str], interval: float = 0.5, desc: str = "waiting for tasks to be received", **policy: Any
    ) -> Any:
        """Wait until workers have all of the tasks."""
        return self.assert_task_worker_state(self.is_received, ids, interval=interval, desc=desc, **policy)

    def assert_result_tasks_in_progress_or_completed(
        self,
        async_results: Iterable[Any],
        interval: float = 0.5,
        desc: str = "waiting for tasks to be started or completed",
        **policy: Any,
    ) -> Any:
        """Wait until each of the results says that its task has begun; tasks with `track_started` do."""
        return self.assert_task_state_from_result(
            self.is_result_task_in_progress, async_results, interval=interval, desc=desc, **policy
        )

    def assert_task_state_from_result(
        self, fun: Callable[..., Any], results: Iterable[Any], interval: float = 0.5, **policy: Any
    ) -> Any:
        """Wait until ``fun(results, timeout=interval)`` is true, and return what it returned."""
        return self._assert(fun, list(results), interval, policy)

    def assert_task_worker_state(
        self, fun: Callable[..., Any], ids: Iterable[str], interval: float = 0.5, **policy: Any
    ) -> Any:
        """Wait until ``fun(ids, timeout=interval)`` is true, and return what it returned."""
        return self._assert(fun, list(ids), interval, policy)

    def _assert(self, fun: Callable[..., Any], subjects: list[Any], interval: float, policy: dict[str, Any]) -> Any:
        return self.wait_for(
            self.true_or_raise,
            (Sentinel,),
            args=(fun, subjects),
            kwargs={"timeout": interval},
            **policy,
        )


class Manager(ManagerMixin):
    """The tools for one app; ``kwargs`` are ``block_timeout``, ``no_join``, ``stdout`` and ``stderr``."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self._init_manager(**kwargs)

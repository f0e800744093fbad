"""Rate limits: one token bucket for each task that has a limit."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from kombu.utils.limits import TokenBucket

from celery.exceptions import ImproperlyConfigured, InvalidRate
from celery.utils.time import rate
from celery.worker import state

__all__ = ("RateLimits",)


class RateLimits:
    """Holds requests back until their task's bucket has a token.

    ``buckets`` maps a task's name to its bucket, ``None`` for no limit.
    """

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self.buckets: defaultdict[str, TokenBucket | None] = defaultdict(lambda: None)
        self._turn = 0

    def bucket_for(self, task: Any) -> TokenBucket | None:
        """Return a bucket for the task's ``rate_limit``, ``None`` if it has none.

        Raises:
            ImproperlyConfigured: it is no rate; the text names the task.
        """
        try:
            limit = rate(getattr(task, "rate_limit", None))
        except InvalidRate as error:
            raise ImproperlyConfigured(f"The `rate_limit` of task {task.name} is no rate: {error}.") from error
        return TokenBucket(limit, capacity=1) if limit else None

    def reset(self) -> None:
        """Make the buckets anew from what the tasks say now; who waits is moved over."""
        waiting = {name: list(bucket.contents) for name, bucket in self.buckets.items() if bucket is not None}
        self.clear()
        self.buckets.update((name, self.bucket_for(task)) for name, task in self.consumer.app.tasks.items())
        for name, entries in waiting.items():
            for request, tokens in entries:
                bucket = self.buckets[name]
                if bucket is None:
                    self._release(request)
                else:
                    self.limit(request, bucket, tokens)

    def clear(self) -> None:
        """Forget who waits."""
        for bucket in self.buckets.values():
            if bucket is not None:
                bucket.clear_pending()

    def limit(self, request: Any, bucket: TokenBucket, tokens: float) -> None:
        """Run the request when ``bucket`` has ``tokens`` for it; who came earlier goes first."""
        is_first = not bucket.contents
        bucket.add((request, tokens))
        state.task_reserved(request)
        if is_first:
            self._release_from(bucket)

    def _release_from(self, bucket: TokenBucket) -> None:
        while bucket.contents:
            request, tokens = bucket.pop()
            if not bucket.can_consume(tokens):
                bucket.contents.appendleft((request, tokens))
                self._turn = (self._turn + 1) % 10  # requests of one moment keep their order
                self.consumer.timer.call_after(
                    bucket.expected_time(tokens), self._release_from, (bucket,), priority=self._turn
                )
                return
            self._release(request)

    def _release(self, request: Any) -> None:
        if not request.revoked():
            state.task_reserved(request)
            self.consumer.run(request)

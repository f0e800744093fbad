"""The task class of apps in a Django project."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction

from celery.app.task import Task


class DjangoTask(Task):
    """A task that can be sent when the transaction of the caller is committed, and not at all if it is rolled back.

    There is no result to return: the task is sent later, at once only outside of a transaction.
    """

    abstract = True

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Call ``delay`` on commit."""
        transaction.on_commit(partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Call ``apply_async`` on commit."""
        transaction.on_commit(partial(self.apply_async, *args, **kwargs))

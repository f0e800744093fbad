"""The tasks that every app has: parts of canvases, and the cleaning of result stores."""

from __future__ import annotations

from typing import Any

from celery._state import connect_on_app_finalize
from celery.backends.chords import fail_body, release_body
from celery.exceptions import ChordError
from celery.utils.log import get_logger

__all__ = ()

logger = get_logger(__name__)


@connect_on_app_finalize
def add_backend_cleanup_task(app: Any) -> Any:
    """Add the task that deletes expired results; beat runs it once a day for stores that do not expire them."""

    @app.task(name="celery.backend_cleanup", shared=False, lazy=False)
    def backend_cleanup() -> None:
        app.backend.cleanup()

    return backend_cleanup


@connect_on_app_finalize
def add_accumulate_task(app: Any) -> Any:
    """Add the task that returns its arguments, or one of them; it joins what a replaced task left."""

    @app.task(bind=True, name="celery.accumulate", shared=False, lazy=False)
    def accumulate(self: Any, *args: Any, **kwargs: Any) -> Any:
        index = kwargs.get("index")
        return args if index is None else args[index]

    return accumulate


@connect_on_app_finalize
def add_map_task(app: Any) -> Any:
    from celery.canvas import signature  # loaded by the first app that is finalized

    @app.task(name="celery.map", shared=False, lazy=False)
    def xmap(task: Any, it: Any) -> list[Any]:
        function = signature(task, app=app).type
        return [function(item) for item in it]

    return xmap


@connect_on_app_finalize
def add_starmap_task(app: Any) -> Any:
    from celery.canvas import signature

    @app.task(name="celery.starmap", shared=False, lazy=False)
    def xstarmap(task: Any, it: Any) -> list[Any]:
        function = signature(task, app=app).type
        return [function(*item) for item in it]

    return xstarmap


@connect_on_app_finalize
def add_chunk_task(app: Any) -> Any:
    from celery.canvas import chunks as _chunks

    @app.task(name="celery.chunks", shared=False, lazy=False)
    def chunks(task: Any, it: Any, n: int) -> Any:
        return _chunks.apply_chunks(task, it, n, app=app).as_tuple()

    return chunks


@connect_on_app_finalize
def add_group_task(app: Any) -> Any:
    from celery.canvas import maybe_signature
    from celery.result import result_from_tuple

    @app.task(name="celery.group", bind=True, shared=False, lazy=False)
    def group(
        self: Any,
        tasks: Any,
        result: Any = None,
        group_id: Any = None,
        partial_args: Any = (),
        add_to_parent: bool = True,
    ) -> Any:
        """Send ``tasks``, which have their ids; ``result`` is the tuple of their group."""
        members = [maybe_signature(task, app=app).clone(partial_args) for task in tasks]
        with app.producer_or_acquire() as producer:
            sent = [
                member.apply_async(group_id=group_id, group_index=index, producer=producer, add_to_parent=False)
                for index, member in enumerate(members)
            ]
        whole = result_from_tuple(result, app) if result is not None else app.GroupResult(group_id, sent, app=app)
        if add_to_parent:
            self.add_trail(whole)
        return whole.as_tuple()

    return group


@connect_on_app_finalize
def add_chain_task(app: Any) -> Any:
    from celery.canvas import _chain

    @app.task(name="celery.chain", bind=True, shared=False, lazy=False)
    def chain(self: Any, *args: Any, tasks: Any = (), **kwargs: Any) -> Any:
        """Start the chain of ``tasks``; ``args`` and ``kwargs`` are for the first."""
        result = _chain(*tasks, app=app).apply_async(args, kwargs)
        return None if result is None else result.as_tuple()

    return chain


@connect_on_app_finalize
def add_chord_task(app: Any) -> Any:
    from celery.canvas import chord as _chord

    @app.task(name="celery.chord", bind=True, ignore_result=False, shared=False, lazy=False)
    def chord(
        self: Any,
        header: Any,
        body: Any,
        partial_args: Any = (),
        interval: float | None = None,
        countdown: float = 1,
        max_retries: int | None = None,
        eager: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Start the chord; the result is a tuple that stands for the result of its body."""
        tasks = header["kwargs"]["tasks"] if isinstance(header, dict) and header.get("subtask_type") else header
        whole = _chord(tasks, body, app=app)
        result = whole.run(
            whole.tasks, whole.body.clone(), partial_args, app, interval, countdown, max_retries, eager, **kwargs
        )
        return result.as_tuple()

    return chord


@connect_on_app_finalize
def add_unlock_chord_task(app: Any) -> Any:
    from celery.canvas import maybe_signature
    from celery.result import result_from_tuple

    @app.task(
        name="celery.chord_unlock",
        bind=True,
        max_retries=None,
        default_retry_delay=app.conf.result_chord_retry_interval,
        ignore_result=True,
        shared=False,
        lazy=False,
    )
    def unlock_chord(
        self: Any,
        group_id: str,
        callback: Any,
        interval: float | None = None,
        max_retries: int | None = None,
        result: Any = None,
        **kwargs: Any,
    ) -> None:
        """Look whether the members in ``result`` have all ended, and send the body ``callback``, or look again later.

        It gives up, and fails the body, after ``max_retries`` or when the results will have expired.
        """
        body = maybe_signature(callback, app=app)
        header = app.GroupResult(group_id, [result_from_tuple(member, app=app) for member in result], app=app)
        if interval is None:
            interval = self.default_retry_delay
        failure: BaseException | None = None
        try:
            ended = header.ready()
        except Exception as error:  # the store does not answer: that may pass
            logger.warning("Chord %r: cannot read the results of its header: %r", group_id, error)
            ended, failure = False, error
        if ended:
            if not _was_sent_before(self, body):
                release_body(app.backend, header, body, group_id)
            return
        reason = _why_give_up(app, self.request.retries, interval, max_retries)
        if reason is not None:
            fail_body(app.backend, body, ChordError(f"The header of chord {group_id} did not end {reason}"), failure)
            return
        raise self.retry(countdown=interval, max_retries=max_retries)

    return unlock_chord


def _was_sent_before(task: Any, body: Any) -> bool:
    """Whether the same message was here before and got as far as sending ``body``."""
    if not (task.request.delivery_info or {}).get("redelivered") or body.id is None:
        return False
    return bool(task.backend.get_state(body.id) != "PENDING")


def _why_give_up(app: Any, retries: int, interval: float, max_retries: int | None) -> str | None:
    """Return in words which limit is reached; None to go on."""
    if max_retries is not None and retries >= max_retries:
        return f"within {max_retries} looks (max_retries)"
    expires = app.conf.result_chord_expires or app.conf.result_expires
    seconds = expires.total_seconds() if hasattr(expires, "total_seconds") else expires
    if seconds and retries * interval > seconds:
        return f"within {seconds:.0f} seconds, after which results expire (result_chord_expires, result_expires)"
    return None

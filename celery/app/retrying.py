"""How a running task sends itself again, or something else in its place."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from kombu.utils.functional import maybe_list

from celery.exceptions import Ignore, ImproperlyConfigured, MaxRetriesExceededError, Reject, Retry

if TYPE_CHECKING:
    from celery.app.task import Task
    from celery.canvas import Signature

__all__ = ("replacement", "retry", "send_replacement", "signature_from_request")


def retry(
    task: Task[Any, Any],
    args: Any,
    kwargs: Any,
    exc: BaseException | None,
    throw: bool,
    eta: Any,
    countdown: float | None,
    max_retries: int | None,
    options: dict[str, Any],
) -> Retry:
    """Do what ``Task.retry`` says."""
    request = task.request
    if request.called_directly:
        # A plain function call: there is no message to send again, so the error goes to the caller.
        _raise_from_current(exc or Retry("Task can be retried", None))
    if max_retries is None:
        max_retries = task.max_retries
    else:
        task.override_max_retries = max_retries  # for `autoretry_for`, should it see the error raised below
    if countdown is None and not eta:
        countdown = task.default_retry_delay
    retries = request.retries + 1
    if max_retries is not None and retries > max_retries:
        if exc:
            _raise_from_current(exc)
        raise MaxRetriesExceededError(
            f"Can't retry {task.name}[{request.id}] args:{tuple(request.args or ())} kwargs:{request.kwargs}",
            task_args=request.args,
            task_kwargs=request.kwargs,
        )
    again = task.signature_from_request(
        request,
        args,
        kwargs,
        **{
            **_representations(request, args, kwargs),
            "retries": retries,
            "ignore_result": request.__dict__.get("ignore_result"),
            "countdown": countdown,
            "eta": eta,
            **options,
        },
    )
    outcome = Retry(exc=exc, when=eta or countdown, is_eager=request.is_eager, sig=again)
    if not request.is_eager:
        try:
            again.apply_async()
        except Exception as error:  # not sent: the message must not be acknowledged as if it was
            raise Reject(error, requeue=False) from error
    if throw:
        raise outcome
    return outcome


def _representations(request: Any, args: Any, kwargs: Any) -> dict[str, str]:
    """Return what logs and monitors show of arguments that stay: the caller may have left something secret out."""
    shown = {
        "argsrepr": request.get("argsrepr") if args is None else None,
        "kwargsrepr": request.get("kwargsrepr") if kwargs is None else None,
    }
    return {name: text for name, text in shown.items() if text is not None}


def _raise_from_current(error: BaseException) -> None:
    """Raise ``error``; if another one is being handled, that is its cause."""
    current = sys.exc_info()[1]
    if current is None or current is error or error.__cause__ is not None:
        raise error
    raise error from current


def signature_from_request(
    task: Task[Any, Any], request: Any, args: Any, kwargs: Any, queue: str | None, extra: dict[str, Any]
) -> Signature[Any]:
    """Return a call with the request's options, sent where the request came from."""
    request = task.request if request is None else request
    args = request.args if args is None else args
    kwargs = (request.kwargs or {}) if kwargs is None else kwargs
    options = {**request.as_execution_options(), **extra}
    delivery = request.delivery_info or {}
    if delivery.get("priority") is not None:
        options.setdefault("priority", delivery["priority"])
    if queue:
        options["queue"] = queue
    elif delivery.get("exchange"):
        for name in ("exchange", "routing_key"):
            options.setdefault(name, delivery.get(name))
    elif delivery.get("routing_key"):
        # A message for the default exchange has the name of its queue as routing key.
        options.setdefault("queue", delivery["routing_key"])
    return task.signature(args, kwargs, options)


def replacement(task: Task[Any, Any], sig: Signature[Any]) -> Signature[Any]:
    """Return ``sig`` made ready to run under the id of the current request, with all that was to follow it."""
    # loaded by the first canvas
    from celery.canvas import _chain, chunks, signature
    from celery.canvas.chains import gives_many
    from celery.canvas.signatures import as_signature

    request = task.request
    sig = as_signature(sig, task.app, f"What is to replace {task.name}")
    options = sig.options
    if "chord" in options and options["chord"] is not None:
        raise ImproperlyConfigured("A signature replacing a task must not be part of a chord")
    if isinstance(sig, _chain) and not sig.tasks:
        raise ImproperlyConfigured("Cannot replace with an empty chain")
    app = task.app

    if isinstance(sig, chunks):
        sig = sig.group()
    if gives_many(sig):
        # Somebody has to stand for the whole group under the task's id.
        sig |= app.tasks["celery.accumulate"].s(index=0)
    for callback in maybe_list(request.callbacks) or ():
        sig.link(callback)
    for errback in maybe_list(request.errbacks) or ():
        sig.link_error(errback)

    nesting = (request.replaced_task_nesting or 0) + 1
    sig.set(
        chord=request.chord,
        group_id=request.group,
        group_index=request.group_index,
        root_id=request.root_id,
        replaced_task_nesting=nesting,
    )
    last = sig
    while isinstance(last, _chain):
        last = last.tasks[-1]
    if request.reply_to:
        last.set(reply_to=request.reply_to)  # whoever waits for this task waits there
    sig.freeze(request.id)
    for step in reversed(request.chain or ()):
        sig |= signature(step, app=app)
    if isinstance(sig, _chain):
        for each in sig.tasks:
            each.set(replaced_task_nesting=nesting)
    return sig


def send_replacement(task: Task[Any, Any], sig: Signature[Any]) -> Any:
    """Send ``sig`` and leave the run; in an eager run, return its outcome instead."""
    if task.request.is_eager:
        return sig.apply().get()
    sig.delay()
    replaced = Ignore("Replaced by new task")
    replaced.is_replaced = True  # type: ignore[attr-defined]  # the new task ends in the place of this one
    raise replaced

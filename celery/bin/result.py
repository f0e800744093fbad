"""``celery result``: print what came of a task."""

from __future__ import annotations

from typing import Any

import click

from celery.backends.base import DisabledBackend
from celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options
from celery.bin.errors import store_unreadable
from celery.exceptions import ImproperlyConfigured, TimeoutError


@click.command(cls=CeleryCommand)
@click.argument("task_id")
@click.option("-t", "--task", cls=CeleryOption, help_group="Result Options", help="Name of the task.")
@click.option(
    "--traceback", cls=CeleryOption, is_flag=True, help_group="Result Options", help="Print its traceback instead."
)
@click.option(
    "--timeout",
    cls=CeleryOption,
    type=float,
    help_group="Result Options",
    help="Seconds to wait; without it, for as long as it takes.",
)
@click.pass_context
@handle_preload_options
def result(ctx: click.Context, task_id: str, task: str | None, traceback: bool, timeout: float | None) -> None:
    """Print the return value of the task TASK_ID, once there is one."""
    app = ctx.obj.app
    if isinstance(app.backend, DisabledBackend):
        raise ImproperlyConfigured(
            "`celery result` needs `result_backend`, which is not set (option --result-backend)."
        )
    handle = _handle(app, task_id, task)
    if (traceback or timeout is None) and _state(app, handle) == "PENDING" and not traceback:
        ctx.obj.error(
            f"Task {task_id} has no result yet: never sent, expired, or still waiting.  Ctrl-C ends the wait."
        )
    if traceback:
        ctx.obj.echo(handle.traceback)
        return
    try:
        ctx.obj.echo(handle.get(timeout=timeout))
    except TimeoutError as exc:
        raise click.ClickException(f"Task {task_id} has no result after {timeout} s.") from exc
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as exc:
        raise click.ClickException(f"Task {task_id} ended in {handle.state}: {type(exc).__name__}: {exc}") from exc


def _state(app: Any, handle: Any) -> Any:
    """Return the state of a task.

    Raises:
        Failure: the store cannot be read.
    """
    try:
        return handle.state
    except (ImproperlyConfigured, ImportError):
        raise
    except Exception as exc:
        raise store_unreadable(app, exc) from exc


def _handle(app: Any, task_id: str, task: str | None) -> Any:
    if not task:
        return app.AsyncResult(task_id)
    app.loader.import_default_modules()
    if task not in app.tasks:
        raise click.UsageError(f"--task: there is no task of the name `{task}` here.")
    return app.tasks[task].AsyncResult(task_id)

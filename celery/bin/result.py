"""``celery result``: print what came of a task."""

from __future__ import annotations

import click

from celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options


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
    from celery.exceptions import TimeoutError

    app = ctx.obj.app
    handle = app.tasks[task].AsyncResult(task_id) if task else app.AsyncResult(task_id)
    if not traceback and timeout is None and handle.state == "PENDING":
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

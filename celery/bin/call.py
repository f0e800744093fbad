"""``celery call``: send a task by its name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click
from kombu.exceptions import SerializationError, SerializerNotInstalled

from celery.bin.base import (
    ISO8601,
    ISO8601_OR_FLOAT,
    JSON_ARRAY,
    JSON_OBJECT,
    CeleryCommand,
    CeleryOption,
    handle_preload_options,
)


@click.command(cls=CeleryCommand)
@click.argument("name")
@click.option(
    "-a",
    "--args",
    cls=CeleryOption,
    type=JSON_ARRAY,
    default="[]",
    help_group="Calling Options",
    help="Positional arguments.",
)
@click.option(
    "-k",
    "--kwargs",
    cls=CeleryOption,
    type=JSON_OBJECT,
    default="{}",
    help_group="Calling Options",
    help="Keyword arguments.",
)
@click.option(
    "--eta", cls=CeleryOption, type=ISO8601, help_group="Calling Options", help="When to run it, in ISO 8601."
)
@click.option(
    "--countdown", cls=CeleryOption, type=float, help_group="Calling Options", help="Seconds to wait before it runs."
)
@click.option(
    "--expires",
    cls=CeleryOption,
    type=ISO8601_OR_FLOAT,
    help_group="Calling Options",
    help="When it must not run any more: seconds from now, or a time in ISO 8601.",
)
@click.option(
    "--serializer", cls=CeleryOption, default="json", help_group="Calling Options", help="Serializer of the arguments."
)
@click.option("--queue", cls=CeleryOption, type=str, help_group="Routing Options", help="Queue to send it to.")
@click.option("--exchange", cls=CeleryOption, help_group="Routing Options", help="Exchange to send it to.")
@click.option("--routing-key", cls=CeleryOption, help_group="Routing Options", help="Routing key to send it with.")
@click.option(
    "--strict",
    is_flag=True,
    cls=CeleryOption,
    help_group="Calling Options",
    help="Refuse a task that this app does not know, and arguments that do not fit it.",
)
@click.pass_context
@handle_preload_options
def call(
    ctx: click.Context,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    eta: Any,
    countdown: float | None,
    expires: Any,
    serializer: str,
    queue: str | None,
    exchange: str | None,
    routing_key: str | None,
    strict: bool,
) -> None:
    """Send the task NAME and print its id."""
    _check_name(ctx, name, strict)
    _check_arguments(ctx, name, args, kwargs, strict)
    try:
        sent = ctx.obj.app.send_task(
            name,
            args=args,
            kwargs=kwargs,
            countdown=countdown,
            serializer=serializer,
            queue=queue,
            exchange=exchange,
            routing_key=routing_key,
            eta=eta,
            expires=expires,
        )
    except (TypeError, ValueError, SerializationError, SerializerNotInstalled) as exc:
        raise click.UsageError(str(exc)) from exc
    ctx.obj.echo(sent.id)


def _check_name(ctx: click.Context, name: str, strict: bool) -> None:
    """Warn of a name that is not registered here, or refuse it; workers may know tasks that this app does not."""
    app = ctx.obj.app
    app.loader.import_default_modules()
    tasks = [known for known in app.tasks if not known.startswith("celery.")]
    if name in app.tasks or (not tasks and not strict):
        return
    near = get_close_matches(name, tasks, n=1)
    nearest = f", nearest `{near[0]}`" if near else ""
    problem = f"no task of the name `{name}` here ({len(tasks)} known{nearest})"
    if strict:
        raise click.UsageError(f"There is {problem}.")
    ctx.obj.error(f"Warning: {problem}; sent anyway. --strict refuses.")


def _check_arguments(ctx: click.Context, name: str, args: list[Any], kwargs: dict[str, Any], strict: bool) -> None:
    """Warn of arguments that do not fit the task as it is known here, or refuse them."""
    task = ctx.obj.app.tasks.get(name)
    check = getattr(task, "__header__", None) if task is not None and task.typing else None
    if check is None:
        return
    try:
        check(*args, **kwargs)
    except TypeError as exc:
        if strict:
            raise click.UsageError(f"{exc}.") from exc
        ctx.obj.error(f"Warning: {exc}; sent anyway. --strict refuses.")

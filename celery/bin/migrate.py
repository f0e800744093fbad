"""``celery migrate``: take the tasks of one broker to another."""

from __future__ import annotations

from typing import Any

import click
from kombu import Connection

from celery.app.brokers import is_login_refused, login_refused, unreachable
from celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options
from celery.bin.errors import EX_CONFIG, Failure
from celery.contrib.migrate import State, migrate_tasks
from celery.platforms import EX_UNAVAILABLE
from celery.utils.text import pluralize


@click.command(cls=CeleryCommand)
@click.argument("source")
@click.argument("destination")
@click.option(
    "-n", "--limit", cls=CeleryOption, type=int, help_group="Migration Options", help="Most messages to look at."
)
@click.option(
    "-t",
    "--timeout",
    cls=CeleryOption,
    type=float,
    default=1.0,
    help_group="Migration Options",
    help="Seconds without a message after which it ends.",
)
@click.option(
    "-a",
    "--ack-messages",
    cls=CeleryOption,
    is_flag=True,
    help_group="Migration Options",
    help="Take the tasks away from the source; without it they are in both places.",
)
@click.option(
    "-T", "--tasks", cls=CeleryOption, help_group="Migration Options", help="Names of tasks to take, by commas."
)
@click.option(
    "-Q",
    "--queues",
    cls=CeleryOption,
    help_group="Migration Options",
    help="Queues to take, by commas; `a:b` takes the queue a to a queue b.",
)
@click.option(
    "-F", "--forever", cls=CeleryOption, is_flag=True, help_group="Migration Options", help="Go on until killed."
)
@click.pass_context
@handle_preload_options
def migrate(ctx: click.Context, source: str, destination: str, **kwargs: Any) -> None:
    """Take the tasks of the broker SOURCE to the broker DESTINATION, both given as URLs."""
    app = ctx.obj.app

    def tell(state: State, body: Any, message: Any) -> None:
        name, task_id = message.headers.get("task", "?"), message.headers.get("id", "?")
        ctx.obj.echo(f"Migrating task {state.count + 1}/{state.strtotal}: {name}[{task_id}]")

    with _open(app, source) as origin, _open(app, destination) as target:
        state = migrate_tasks(origin, target, callback=tell, app=app, **kwargs)
    if not ctx.obj.quiet:
        kept = "" if kwargs["ack_messages"] else "  They are in the source still (--ack-messages takes them away)."
        ctx.obj.error(f"{state.count} {pluralize(state.count, 'message')} seen.{kept if state.count else ''}")


def _open(app: Any, url: str) -> Connection:
    """Return a connection that is open.

    Raises:
        click.ClickException: nobody answers there, or nobody lets us in.
    """
    connection = app.connection_for_write(url)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0.2, reraise_as_library_errors=False)
    except Exception as exc:
        if is_login_refused(exc):
            raise Failure(login_refused(connection, exc), EX_CONFIG) from exc
        raise Failure(unreachable(connection, exc), EX_UNAVAILABLE) from exc
    return connection

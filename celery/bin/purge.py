"""``celery purge``: delete the messages that wait."""

from __future__ import annotations

import click

from celery.bin.base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, handle_preload_options
from celery.utils import text


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.option("-f", "--force", cls=CeleryOption, is_flag=True, help_group="Purging Options", help="Do not ask.")
@click.option(
    "-Q",
    "--queues",
    cls=CeleryOption,
    type=COMMA_SEPARATED_LIST,
    help_group="Purging Options",
    help="Queues to purge, by commas; without it, all that are configured.",
)
@click.option(
    "-X",
    "--exclude-queues",
    cls=CeleryOption,
    type=COMMA_SEPARATED_LIST,
    help_group="Purging Options",
    help="Queues to leave alone, by commas.",
)
@click.pass_context
@handle_preload_options
def purge(
    ctx: click.Context, force: bool, queues: list[str] | None, exclude_queues: list[str] | None, **kwargs: object
) -> None:
    """Delete all messages that wait in the configured queues.  There is no way back."""
    app = ctx.obj.app
    names = sorted(set(queues or app.amqp.queues.keys()) - set(exclude_queues or ()))
    count_text = text.pluralize(len(names), "queue")
    if not names:
        ctx.obj.echo("There is no queue to purge.")
        return
    if not force:
        listed = ", ".join(f"`{name}`" for name in names)
        ctx.obj.echo(f"This deletes all messages from {len(names)} {count_text}: {listed}.  It cannot be undone.")
        click.confirm("Are you sure you want to delete all tasks?", abort=True)
    with app.connection_for_write() as connection:
        deleted = sum(_purge(connection, name) for name in names)
    if deleted:
        messages = text.pluralize(deleted, "message")
        ctx.obj.echo(f"Purged {deleted} {messages} from {len(names)} known task {count_text}.")
    else:
        ctx.obj.echo(f"No messages purged from {len(names)} {count_text}.")


def _purge(connection: object, queue: str) -> int:
    try:
        return connection.default_channel.queue_purge(queue) or 0  # type: ignore[attr-defined]
    except connection.channel_errors:  # type: ignore[attr-defined]  # there is no such queue
        return 0

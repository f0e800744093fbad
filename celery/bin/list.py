"""``celery list``: print what the broker knows."""

from __future__ import annotations

import click

from celery.bin.base import CeleryCommand, handle_preload_options


@click.group(name="list")
@click.pass_context
@handle_preload_options
def list_(ctx: click.Context) -> None:
    """Print what the broker knows."""


@list_.command(cls=CeleryCommand)
@click.pass_context
def bindings(ctx: click.Context) -> None:
    """Print which queue is bound to which exchange, and by what key."""
    app = ctx.obj.app
    with app.connection() as connection:
        app.amqp.TaskConsumer(connection).declare()
        try:
            found = connection.manager.get_bindings()
        except (NotImplementedError, AttributeError) as exc:
            raise click.ClickException("Your transport cannot list bindings.") from exc
        _row(ctx, "Queue", "Exchange", "Routing Key")
        _row(ctx, "-" * 16, "-" * 16, "-" * 16)
        for binding in found:
            _row(ctx, binding["destination"], binding["source"], binding["routing_key"])


def _row(ctx: click.Context, queue: str, exchange: str, routing_key: str) -> None:
    ctx.obj.echo(f"{queue:<28} {exchange:<28} {routing_key}")

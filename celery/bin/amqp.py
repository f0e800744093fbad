"""``celery amqp``: look at a broker and change it by hand, one command at a time or at a prompt."""

from __future__ import annotations

from collections.abc import Callable
from pprint import pformat
from typing import Any

import click
from click_repl import repl as prompt

from celery.bin.base import CLIContext, handle_preload_options
from celery.bin.errors import Failure, explained

__all__ = (
    "AMQPContext",
    "amqp",
    "basic_ack",
    "basic_get",
    "basic_publish",
    "exchange_declare",
    "exchange_delete",
    "queue_bind",
    "queue_declare",
    "queue_delete",
    "queue_purge",
)


class DeliveryTag(click.ParamType):
    """A number, as AMQP has it; other brokers have text."""

    name = "integer"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return int(value) if str(value).isdigit() else value


DELIVERY_TAG = DeliveryTag()


class AMQPContext:
    """The connection that the commands share, and ways to print what they come to."""

    def __init__(self, cli_context: CLIContext) -> None:
        self.cli_context = cli_context
        self.connection: Any = self.app.connection_for_write()
        self.channel: Any = None
        #: At a prompt an error is told and the next command awaited; else it ends the program.
        self.is_interactive = False
        self.reconnect()

    @property
    def app(self) -> Any:
        return self.cli_context.app

    def respond(self, retval: Any) -> None:
        """Print what a command came to."""
        self.cli_context.echo(retval if isinstance(retval, str) else pformat(retval))

    def echo_error(self, exception: Exception) -> None:
        self.cli_context.error(f"{self.cli_context.ERROR}: {exception}")

    def echo_ok(self) -> None:
        self.cli_context.echo(self.cli_context.OK)

    def reconnect(self) -> None:
        """Open the connection and a channel, or open them again."""
        if self.channel is not None:
            self.connection.release()
            self.connection = self.app.connection_for_write()
        say = self.cli_context.error
        say(f"-> connecting to {self.connection.as_uri()}.")
        self.connection.ensure_connection(max_retries=1, interval_start=0.2, reraise_as_library_errors=False)
        self.channel = self.connection.default_channel
        say("-> connected.")

    def run(self, command: Callable[[Any], Any]) -> None:
        """Give the channel to ``command`` and print what it returns, then OK.

        Raises:
            click.ClickException: it failed, and no prompt waits for the next one.
        """
        try:
            value = command(self.channel)
        except Exception as exc:
            if not self.is_interactive:
                raise self._failure(exc) from exc
            self.echo_error(exc)
            self.reconnect()
        else:
            if value is not None:
                self.respond(value)
            self.echo_ok()

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, KeyError):  # kombu's own transports keep declarations in the process that makes them
            return Failure(f"No exchange {error} is known here: this broker keeps none, declare it at the prompt.")
        if isinstance(error, self.connection.channel_errors):
            return Failure(str(error))
        return explained(error, self.app)


@click.group(invoke_without_command=True)
@click.pass_context
@handle_preload_options
def amqp(ctx: click.Context) -> None:
    """Look at a broker and change it by hand.

    Without a command this is a prompt.  Brokers that speak no AMQP work too, unless they keep declarations in
    memory.
    """
    if not isinstance(ctx.obj, AMQPContext):  # at the prompt, each command comes through here again
        ctx.obj = AMQPContext(ctx.obj)
        ctx.call_on_close(lambda: ctx.obj.connection.release())
    if ctx.invoked_subcommand is None:
        ctx.invoke(repl)


@amqp.command(name="exchange.declare")
@click.argument("exchange", type=str)
@click.argument("type", type=str)
@click.argument("passive", type=bool, default=False)
@click.argument("durable", type=bool, default=False)
@click.argument("auto_delete", type=bool, default=False)
@click.pass_obj
def exchange_declare(
    amqp_context: AMQPContext, exchange: str, type: str, passive: bool, durable: bool, auto_delete: bool
) -> None:
    """Declare an exchange."""
    amqp_context.run(
        lambda channel: _nothing(
            channel.exchange_declare(
                exchange=exchange, type=type, passive=passive, durable=durable, auto_delete=auto_delete
            )
        )
    )


@amqp.command(name="exchange.delete")
@click.argument("exchange", type=str)
@click.argument("if_unused", type=bool, default=False)
@click.pass_obj
def exchange_delete(amqp_context: AMQPContext, exchange: str, if_unused: bool) -> None:
    """Delete an exchange."""
    amqp_context.run(lambda channel: _nothing(channel.exchange_delete(exchange=exchange, if_unused=if_unused)))


@amqp.command(name="queue.bind")
@click.argument("queue", type=str)
@click.argument("exchange", type=str)
@click.argument("routing_key", type=str)
@click.pass_obj
def queue_bind(amqp_context: AMQPContext, queue: str, exchange: str, routing_key: str) -> None:
    """Bind a queue to an exchange."""
    amqp_context.run(
        lambda channel: _nothing(channel.queue_bind(queue=queue, exchange=exchange, routing_key=routing_key))
    )


@amqp.command(name="queue.declare")
@click.argument("queue", type=str)
@click.argument("passive", type=bool, default=False)
@click.argument("durable", type=bool, default=False)
@click.argument("auto_delete", type=bool, default=False)
@click.pass_obj
def queue_declare(amqp_context: AMQPContext, queue: str, passive: bool, durable: bool, auto_delete: bool) -> None:
    """Declare a queue, and print how many messages and consumers it has."""

    def declare(channel: Any) -> str:
        found = channel.queue_declare(queue=queue, passive=passive, durable=durable, auto_delete=auto_delete)
        return "queue:{} messages:{} consumers:{}".format(*found)

    amqp_context.run(declare)


@amqp.command(name="queue.delete")
@click.argument("queue", type=str)
@click.argument("if_unused", type=bool, default=False)
@click.argument("if_empty", type=bool, default=False)
@click.pass_obj
def queue_delete(amqp_context: AMQPContext, queue: str, if_unused: bool, if_empty: bool) -> None:
    """Delete a queue, and print how many messages were in it."""
    amqp_context.run(
        lambda channel: (
            f"{channel.queue_delete(queue=queue, if_unused=if_unused, if_empty=if_empty) or 0} messages deleted."
        )
    )


@amqp.command(name="queue.purge")
@click.argument("queue", type=str)
@click.pass_obj
def queue_purge(amqp_context: AMQPContext, queue: str) -> None:
    """Delete the messages in a queue, and print how many there were."""
    amqp_context.run(lambda channel: f"{channel.queue_purge(queue=queue) or 0} messages deleted.")


@amqp.command(name="basic.get")
@click.argument("queue", type=str)
@click.argument("no_ack", type=bool, default=False)
@click.pass_obj
def basic_get(amqp_context: AMQPContext, queue: str, no_ack: bool) -> None:
    """Print one message of a queue.

    Without NO_ACK it goes back when the connection closes, unless it was acknowledged at the prompt.
    """

    def get(channel: Any) -> Any:
        message = channel.basic_get(queue, no_ack=no_ack)
        if message is None:
            return "No messages in queue. basic.publish something."
        info = {"delivery_tag": message.delivery_tag, **message.delivery_info}
        return {"body": _readable(message.body), "properties": message.properties, "delivery_info": info}

    amqp_context.run(get)


@amqp.command(name="basic.publish")
@click.argument("msg", type=str)
@click.argument("exchange", type=str)
@click.argument("routing_key", type=str)
@click.argument("mandatory", type=bool, default=False)
@click.argument("immediate", type=bool, default=False)
@click.pass_obj
def basic_publish(
    amqp_context: AMQPContext, msg: str, exchange: str, routing_key: str, mandatory: bool, immediate: bool
) -> None:
    """Send a message; an EXCHANGE of "" is the default one, whose routing keys are names of queues."""

    def publish(channel: Any) -> None:
        message = channel.prepare_message(msg)
        channel.basic_publish(
            message, exchange=exchange, routing_key=routing_key, mandatory=mandatory, immediate=immediate
        )

    amqp_context.run(publish)


@amqp.command(name="basic.ack")
@click.argument("delivery_tag", type=DELIVERY_TAG)
@click.pass_obj
def basic_ack(amqp_context: AMQPContext, delivery_tag: int | str) -> None:
    """Acknowledge a message that was got at this prompt."""
    amqp_context.run(lambda channel: channel.basic_ack(delivery_tag))


@amqp.command()
@click.pass_context
def repl(ctx: click.Context) -> None:
    """Read commands from a prompt, with completion; `:quit` ends."""
    ctx.obj.is_interactive = True
    group = ctx if isinstance(ctx.command, click.Group) else ctx.parent
    assert group is not None
    prompt(group, allow_system_commands=False)


def _readable(body: Any) -> Any:
    try:
        return body.decode() if isinstance(body, bytes) else body
    except UnicodeDecodeError:
        return body


def _nothing(reply: Any) -> None:
    """Leave out a reply that tells no more than OK does."""

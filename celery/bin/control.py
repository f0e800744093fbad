"""``celery status``, ``celery inspect`` and ``celery control``: ask workers, and tell them what to do."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

import click
from click.shell_completion import CompletionItem

from celery.bin.base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, handle_preload_options
from celery.exceptions import CeleryCommandException
from celery.platforms import EX_UNAVAILABLE
from celery.utils import text
from celery.worker.control import Panel


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that the three commands share."""
    for decorate in (
        click.option(
            "-j",
            "--json",
            cls=CeleryOption,
            is_flag=True,
            help_group="Remote Control Options",
            help="Print the answers as JSON.",
        ),
        click.option(
            "-d",
            "--destination",
            cls=CeleryOption,
            type=COMMA_SEPARATED_LIST,
            help_group="Remote Control Options",
            help="Nodes to ask, by commas; without it, all.",
        ),
        click.option(
            "-t",
            "--timeout",
            cls=CeleryOption,
            type=float,
            default=1.0,
            help_group="Remote Control Options",
            help="Seconds to wait for answers.",
        ),
    ):
        function = decorate(function)
    return function


def _commands(kind: str) -> dict[str, Any]:
    """Return the commands of ``kind`` (``inspect`` or ``control``) by name, those of the project's among them."""
    return {name: info for name, info in Panel.meta.items() if info.type == kind and info.visible}


def _completed(kind: str, ctx: click.Context, param: Any, begun: str) -> list[CompletionItem]:
    """Return the commands that begin like that, for the shell."""
    return [
        CompletionItem(name, help=info.help) for name, info in sorted(_commands(kind).items()) if name.startswith(begun)
    ]


def _list(ctx: click.Context, kind: str) -> None:
    formatter = ctx.make_formatter()
    with formatter.section(f"{kind.capitalize()} Commands"):
        formatter.write_dl([(_usage(name, info), info.help or "") for name, info in sorted(_commands(kind).items())])
    ctx.obj.echo(formatter.getvalue().rstrip())


def _usage(name: str, info: Any) -> str:
    signature = info.signature or " ".join(
        [*(f"[{arg[0]}]" for arg in info.args or ()), *([f"[{info.variadic} ...]"] if info.variadic else [])]
    )
    return f"{name} {signature}".strip()


def _list_option(kind: str) -> Callable[..., Any]:
    def show(ctx: click.Context, param: Any, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            _list(ctx, kind)
            ctx.exit()

    return click.option(
        "--list",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        help=f"Print the {kind} commands.",
    )


def _arguments(ctx: click.Context, kind: str, name: str, words: list[str]) -> dict[str, Any]:
    """Return the words after the command's name as its arguments.

    Raises:
        click.UsageError: there is no such command, a word is too many, or of the wrong type.
    """
    commands = _commands(kind)
    info = commands.get(name)
    if info is None:
        near = get_close_matches(name, list(commands), n=2)
        hint = f" Did you mean {' or '.join(f'`{word}`' for word in near)}?" if near else ""
        other = "control" if kind == "inspect" else "inspect"
        if name in _commands(other):
            hint = f" It is a command of `celery {other}`."
        raise click.UsageError(f"Command {name} not recognized.{hint} `celery {kind} --list` prints all.", ctx)
    known = list(info.args or ())
    if len(words) > len(known) and not info.variadic:
        raise click.UsageError(f"Usage: celery {kind} {_usage(name, info)}; too many arguments: {words}", ctx)
    values: dict[str, Any] = {info.variadic: words[len(known) :]} if info.variadic else {}
    for (argument, kind_of), word in zip(known, words):  # noqa: B905 - words may be fewer
        try:
            values[argument] = kind_of(word) if kind_of else word
        except (ValueError, TypeError) as exc:
            raise click.UsageError(f"celery {kind} {name}: {argument} cannot be {word!r}: {exc}", ctx) from exc
    return values


def _no_reply(ctx: click.Context, json: bool, empty: str) -> Any:
    if json:
        ctx.obj.echo(empty)
    raise CeleryCommandException(message="No nodes replied within time constraint", exit_code=EX_UNAVAILABLE)


def _say(ctx: click.Context, show_body: bool = True) -> Callable[[dict[str, Any]], None]:
    """Return what prints one node's answer as it comes."""

    def say_remote_command_reply(reply: dict[str, Any]) -> None:
        node = next(iter(reply))
        status, body = ctx.obj.pretty(reply[node])
        ctx.obj.say_chat("->", f"{node}: {status}", text.indent(body, 4) if body else "", show_body=show_body)

    return say_remote_command_reply


@click.command(cls=CeleryCommand)
@_options
@click.pass_context
@handle_preload_options
def status(ctx: click.Context, timeout: float, destination: list[str] | None, json: bool, **kwargs: Any) -> None:
    """Print which workers are alive."""
    callback = None if json else _say(ctx, show_body=False)
    replies = ctx.obj.app.control.inspect(timeout=timeout, destination=destination, callback=callback).ping()
    if not replies:
        _no_reply(ctx, json, "{}")
    if json:
        ctx.obj.echo(json_format.dumps(replies))
    nodes = len(replies)
    if not json and not ctx.obj.quiet:
        ctx.obj.echo(f"\n{nodes} {text.pluralize(nodes, 'node')} online.")


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.argument("command", shell_complete=partial(_completed, "inspect"))
@_list_option("inspect")
@_options
@click.pass_context
@handle_preload_options
def inspect(
    ctx: click.Context, command: str, timeout: float, destination: list[str] | None, json: bool, **kwargs: Any
) -> None:
    """Ask workers: `celery inspect --list` prints what."""
    arguments = _arguments(ctx, "inspect", command, ctx.args)
    questions = ctx.obj.app.control.inspect(
        timeout=timeout, destination=destination, callback=None if json else _say(ctx)
    )
    replies = questions._request(command, **arguments)
    if not replies:
        _no_reply(ctx, json, "{}")
    if json:
        ctx.obj.echo(json_format.dumps(replies, default=str))
        return
    nodes = len(replies)
    if not ctx.obj.quiet:
        ctx.obj.echo(f"\n{nodes} {text.pluralize(nodes, 'node')} online.")


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.argument("command", shell_complete=partial(_completed, "control"))
@_list_option("control")
@_options
@click.pass_context
@handle_preload_options
def control(
    ctx: click.Context, command: str, timeout: float, destination: list[str] | None, json: bool, **kwargs: Any
) -> None:
    """Tell workers what to do: `celery control --list` prints what they know."""
    arguments = _arguments(ctx, "control", command, ctx.args)
    replies = ctx.obj.app.control.broadcast(
        command,
        timeout=timeout,
        destination=destination,
        callback=None if json else _say(ctx),
        reply=True,
        arguments=arguments,
    )
    if not replies:
        _no_reply(ctx, json, "[]")
    if json:
        ctx.obj.echo(json_format.dumps(replies, default=str))

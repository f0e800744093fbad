"""The program ``celery``: finds the app, then hands over to the command."""

from __future__ import annotations

import errno
import importlib.util
import os
import pathlib
import sys
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

import click
import click.exceptions
from click_didyoumean import DYMGroup
from click_plugins import with_plugins

from celery import VERSION_BANNER
from celery.app.utils import bugreport, find_app
from celery.bin.base import CeleryCommand, CeleryOption, CLIContext, handle_preload_options
from celery.bin.errors import explained, last_user_frame, show_warnings_in_a_line
from celery.exceptions import ImproperlyConfigured

#: Command → where it is.  A command is loaded when it is asked for; those of later releases are simply not there.
COMMANDS = {
    "amqp": "celery.bin.amqp:amqp",
    "beat": "celery.bin.beat:beat",
    "call": "celery.bin.call:call",
    "control": "celery.bin.control:control",
    "events": "celery.bin.events:events",
    "graph": "celery.bin.graph:graph",
    "inspect": "celery.bin.control:inspect",
    "list": "celery.bin.list:list_",
    "logtool": "celery.bin.logtool:logtool",
    "migrate": "celery.bin.migrate:migrate",
    "multi": "celery.bin.multi:multi",
    "purge": "celery.bin.purge:purge",
    "report": "celery.bin.celery:report",
    "result": "celery.bin.result:result",
    "shell": "celery.bin.shell:shell",
    "status": "celery.bin.control:status",
    "upgrade": "celery.bin.upgrade:upgrade",
    "worker": "celery.bin.worker:worker",
}


class App(click.ParamType):
    """An app, by the module (and name) it is in."""

    name = "application"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            found = find_app(value)
        except ModuleNotFoundError as exc:
            module = str(value).partition(":")[0]
            if exc.name and (module == exc.name or module.startswith(f"{exc.name}.")):
                self.fail(f"No module `{exc.name}` (searched: {_searched()}).", param, ctx)
            self.fail(_failed_on_import(exc), param, ctx)
        except (AttributeError, ImproperlyConfigured) as exc:
            in_module = isinstance(exc, AttributeError) and last_user_frame(exc) is not None
            self.fail(_failed_on_import(exc) if in_module else str(exc), param, ctx)
        except Exception as exc:
            self.fail(_failed_on_import(exc), param, ctx)
        if not hasattr(found, "user_options"):
            self.fail(f"`{value}` is no app; it is of the class `{found.__class__.__name__}`.", param, ctx)
        return found


def _searched() -> str:
    """Return where a user's own modules are looked for."""
    places = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return ", ".join(dict.fromkeys(places))


def _failed_on_import(exc: Exception) -> str:
    """Return where in the user's module its import failed, and by what."""
    if isinstance(exc, SyntaxError) and exc.filename:
        filename: str | None = exc.filename
        line, reason = exc.lineno, exc.msg
    else:
        frame = last_user_frame(exc)
        filename, line, reason = (frame.filename, frame.lineno, str(exc)) if frame else (None, None, str(exc))
    place = f"{os.path.relpath(filename)} line {line}" if filename else "The module"
    return f"{place} failed on import: {type(exc).__name__}: {reason}"


APP = App()


class LazyGroup(DYMGroup):
    """A group whose commands are imported when they are used."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("debug") or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise  # whoever read our output has gone, and click ends in silence
            raise explained(error, getattr(ctx.obj, "app", None)) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *(name for name in COMMANDS if _exists(COMMANDS[name]))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in COMMANDS and _exists(COMMANDS[cmd_name]):
            from celery.utils.imports import symbol_by_name

            found = symbol_by_name(COMMANDS[cmd_name])
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            near = get_close_matches(name, self.list_commands(ctx), n=3, cutoff=0.5)
            hint = f" Did you mean {' or '.join(f'`{word}`' for word in near)}?" if near else ""
            ctx.fail(f"No such command '{name}'.{hint} Known: {', '.join(self.list_commands(ctx))}.")
        return super().resolve_command(ctx, args)


def _exists(path: str) -> bool:
    from importlib.util import find_spec

    return find_spec(path.partition(":")[0]) is not None


def _add_user_options(command: click.Command, app: Any, name: str) -> None:
    """Give ``command`` the options that the app adds to it, once."""
    known = {param.name for param in command.params}
    for group in ("preload", name):
        for option in app.user_options.get(group, ()):
            if getattr(option, "name", None) not in known and isinstance(option, click.Parameter):
                command.params.append(option)


def _plugins() -> Any:
    return entry_points(group="celery.commands")


@with_plugins(_plugins())
@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"auto_envvar_prefix": "CELERY"})
@click.option(
    "-A", "--app", envvar="APP", cls=CeleryOption, type=str, help_group="Global Options", help="Module of the app."
)
@click.option(
    "-b",
    "--broker",
    envvar="BROKER_URL",
    cls=CeleryOption,
    help_group="Global Options",
    help="URL of the broker.",
)
@click.option(
    "--result-backend",
    envvar="RESULT_BACKEND",
    cls=CeleryOption,
    help_group="Global Options",
    help="URL of the result store.",
)
@click.option("--loader", envvar="LOADER", cls=CeleryOption, help_group="Global Options", help="Class of the loader.")
@click.option(
    "--config",
    envvar="CONFIG_MODULE",
    cls=CeleryOption,
    help_group="Global Options",
    help="Module of the configuration.",
)
@click.option(
    "--workdir",
    cls=CeleryOption,
    type=pathlib.Path,
    callback=lambda _, __, directory: _enter(directory),
    is_eager=True,
    help_group="Global Options",
    help="Directory to work in.",
)
@click.option(
    "-C",
    "--no-color",
    envvar="NO_COLOR",
    is_flag=True,
    cls=CeleryOption,
    help_group="Global Options",
    help="Print without colours.",
)
@click.option(
    "-q", "--quiet", is_flag=True, cls=CeleryOption, help_group="Global Options", help="Print no more than asked for."
)
@click.option("--version", is_flag=True, cls=CeleryOption, help_group="Global Options", help="Print the version.")
@click.option(
    "--skip-checks",
    envvar="SKIP_CHECKS",
    is_flag=True,
    cls=CeleryOption,
    help_group="Global Options",
    help="Skip Django's checks at the start.",
)
@click.option(
    "--debug", is_flag=True, cls=CeleryOption, help_group="Global Options", help="Show a traceback with each error."
)
@click.pass_context
def celery(
    ctx: click.Context,
    app: str | None,
    broker: str | None,
    result_backend: str | None,
    loader: str | None,
    config: str | None,
    workdir: Any,
    no_color: bool,
    quiet: bool,
    version: bool,
    skip_checks: bool,
    debug: bool,
) -> None:
    """Run tasks, and look after those who do."""
    if version:
        click.echo(VERSION_BANNER)
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit()
    given = {
        "CELERY_LOADER": loader,
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": result_backend,
        "CELERY_CONFIG_MODULE": config,
        "CELERY_SKIP_CHECKS": "true" if skip_checks else None,
    }
    # Through the environment, so that children and whatever else the app starts see the same.
    os.environ.update({name: value for name, value in given.items() if value})
    if workdir is None and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    if config and not _is_module(config):
        raise click.BadParameter(f"No module `{config}` (searched: {_searched()}).", ctx, _param(ctx, "config"))
    if app:
        found = APP.convert(app, _param(ctx, "app"), ctx)
    else:
        from celery import current_app

        found = current_app._get_current_object()
        if ctx.invoked_subcommand == "worker" and not _has_configuration(found):
            click.echo(
                "No app. Give one: -A module or -A module:name.  (Without, and without a celeryconfig, an empty one "
                "starts.)",
                err=True,
            )
    ctx.obj = CLIContext(app=found, no_color=no_color, workdir=workdir, quiet=quiet)
    command = ctx.command.get_command(ctx, ctx.invoked_subcommand)  # type: ignore[attr-defined]  # it is a group
    _add_user_options(command, found, ctx.invoked_subcommand)


def _enter(directory: pathlib.Path | None) -> pathlib.Path | None:
    if directory:
        try:
            os.chdir(directory)
        except OSError as exc:
            raise click.BadParameter(f"cannot work in {directory}: {exc.strerror}") from exc
        sys.path.insert(0, str(directory.resolve()))
    return directory


def _param(ctx: click.Context, name: str) -> Any:
    return next(param for param in ctx.command.params if param.name == name)


def _is_module(name: str) -> bool:
    """Return whether there is such a module; what its package raises on import is told when the app is loaded."""
    try:
        return importlib.util.find_spec(name.partition(":")[0]) is not None
    except ModuleNotFoundError as exc:
        return exc.name is None or not name.startswith(exc.name)
    except Exception:
        return True


def _has_configuration(app: Any) -> bool:
    """Return whether the default app found a configuration, or was told of a broker."""
    return bool(os.environ.get("CELERY_BROKER_URL") or getattr(app.loader, "configured", False) or app.conf.broker_url)


@celery.command(cls=CeleryCommand)
@click.pass_context
@handle_preload_options
def report(ctx: click.Context, **kwargs: Any) -> None:
    """Print what to tell when asking for help: versions, system, settings without secrets."""
    app = ctx.obj.app
    app.loader.import_default_modules()
    ctx.obj.echo(bugreport(app=app))


def main() -> int:
    """Run the program ``celery``; returns (or exits with) its status."""
    show_warnings_in_a_line()
    return int(celery(auto_envvar_prefix="CELERY") or 0)

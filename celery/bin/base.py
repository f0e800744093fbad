"""What all commands share: the context, grouped help, parameter types, options for daemons."""

from __future__ import annotations

import inspect
import json
import numbers
from collections import OrderedDict
from collections.abc import Callable
from functools import update_wrapper
from pprint import pformat
from typing import TYPE_CHECKING, Any

import click
from click import Context, ParamType

from celery._state import get_current_app
from celery.signals import user_preload_options
from celery.utils import text
from celery.utils.log import mlevel
from celery.utils.time import maybe_iso8601

if TYPE_CHECKING:
    from celery.app.base import Celery

try:
    from pygments import highlight
    from pygments.formatters import Terminal256Formatter
    from pygments.lexers import PythonLexer
except ImportError:

    def highlight(code: str, *args: Any, **kwargs: Any) -> str:
        """Return ``code`` as it is: there is no highlighter."""
        return code

    PythonLexer = Terminal256Formatter = None


class CLIContext:
    """What every command has at hand: the app, and ways to print in (or without) colour."""

    def __init__(self, app: Celery, no_color: bool, workdir: str | None, quiet: bool = False) -> None:
        self.app = app or get_current_app()
        self.no_color = no_color
        self.quiet = quiet
        self.workdir = workdir

    @property
    def OK(self) -> str:
        return self.style("OK", fg="green", bold=True)

    @property
    def ERROR(self) -> str:
        return self.style("ERROR", fg="red", bold=True)

    def style(self, message: Any = None, **kwargs: Any) -> str:
        """Return ``message`` in colour; see `click.style`."""
        return str(message) if self.no_color else click.style(message, **kwargs)

    def secho(self, message: Any = None, **kwargs: Any) -> None:
        """Print ``message`` in colour; see `click.secho`."""
        if self.no_color:
            kwargs["color"] = False
        click.secho(message, **kwargs)

    def echo(self, message: Any = None, **kwargs: Any) -> None:
        """Print ``message``; see `click.echo`."""
        if self.no_color:
            kwargs["color"] = False
            click.echo(message, **kwargs)
        else:
            click.echo(message, **kwargs)

    def error(self, message: Any = None, **kwargs: Any) -> None:
        """Print ``message`` to standard error."""
        kwargs["err"] = True
        self.echo(message, **kwargs)

    def pretty(self, n: Any) -> tuple[str, str]:
        """Return a reply as ``(status, text)``."""
        if isinstance(n, list):
            return self.OK, self.pretty_list(n)
        if isinstance(n, dict):
            if "ok" in n or "error" in n:
                return self.pretty_dict_ok_error(n)
            return self.OK, self._source(json.dumps(n, sort_keys=True, indent=4, default=str))
        if isinstance(n, str):
            return self.OK, n
        return self.OK, pformat(n)

    def pretty_list(self, n: list[Any]) -> str:
        if not n:
            return "- empty -"
        return "\n".join(f"{self.style('*', fg='white')} {item}" for item in n)

    def pretty_dict_ok_error(self, n: dict[str, Any]) -> tuple[str, str]:
        if "ok" in n:
            return self.OK, text.indent(self.pretty(n["ok"])[1], 4)
        return self.ERROR, text.indent(self.pretty(n["error"])[1], 4)

    def say_chat(self, direction: str, title: str, body: Any = "", show_body: bool = False) -> None:
        """Print a line of the talk with the workers; ``direction`` is ``<-`` or ``->``."""
        if direction == "<-" and self.quiet:
            return
        # Upstream: two spaces, which scripts may look for.
        arrow = "" if self.quiet else f"{self.style(direction, fg='white', bold=True)}  "
        self.echo(f"{arrow}{title}")
        if body and show_body:
            self.echo(body)

    def _source(self, code: str) -> str:
        if self.no_color or PythonLexer is None:
            return code
        return highlight(code, PythonLexer(), Terminal256Formatter()).rstrip("\n")


def handle_remote_command_error(command: str, exc: Exception) -> None:
    """Raise what a failed remote command comes to at the command line."""
    text_ = str(exc)
    if isinstance(exc, ValueError) and "no such" in text_.lower():
        raise click.UsageError(text_) from exc
    raise click.ClickException(f"The command {command} could not be sent: {text_}") from exc


def handle_preload_options(f: Callable[..., Any]) -> Callable[..., Any]:
    """Tell the app of the values of the options that it adds to every command; ``f`` gets those that it takes."""
    parameters = inspect.signature(f).parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    taken = {parameter.name for parameter in parameters}

    def caller(ctx: Context, *args: Any, **kwargs: Any) -> Any:
        app = ctx.obj.app
        names = {option.name for option in app.user_options.get("preload", ()) if hasattr(option, "name")}
        user_preload_options.send(sender=f, app=app, options={name: kwargs[name] for name in names if name in kwargs})
        if not takes_all:
            kwargs = {name: value for name, value in kwargs.items() if name in taken}
        return f(ctx, *args, **kwargs)

    return update_wrapper(caller, f)


class CeleryOption(click.Option):
    """An option with a group in the help, and maybe a default that the app's configuration knows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.help_group = kwargs.pop("help_group", None)
        self.default_value_from_context = kwargs.pop("default_value_from_context", None)
        super().__init__(*args, **kwargs)

    def get_default(self, ctx: Context, *args: Any, **kwargs: Any) -> Any:
        if self.default_value_from_context and ctx.obj is not None:
            self.default = ctx.obj.app.conf.get(self.default_value_from_context)
        return super().get_default(ctx, *args, **kwargs)


def log_level_option(help_group: str) -> Callable[[Any], Any]:
    """Return the option ``--loglevel``, as all daemons have it."""
    return click.option(
        "-l",
        "--loglevel",
        default="WARNING",
        cls=CeleryOption,
        type=LOG_LEVEL,
        help_group=help_group,
        help="What to log at least.",
    )


def or_setting(name: str) -> Callable[[Context, Any, Any], Any]:
    """Return an option's callback that takes the setting ``name`` where the option is not given."""
    return lambda ctx, _, value: value or ctx.obj.app.conf[name]


class CeleryCommand(click.Command):
    """A command that shows its options by group."""

    def format_options(self, ctx: Context, formatter: click.HelpFormatter) -> None:
        groups: OrderedDict[str, list[Any]] = OrderedDict()
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record:
                groups.setdefault(getattr(param, "help_group", None) or "Options", []).append(record)
        # The command's own options first, those that every command has last.
        for name in sorted(groups, key=lambda name: name == "Options"):
            with formatter.section(name):
                formatter.write_dl(groups[name])


class DaemonOption(CeleryOption):
    """An option of a daemon; its default is the setting ``<command>_<option>``, where there is one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(
            *args,
            help_group=kwargs.pop("help_group", "Daemonization Options"),
            callback=kwargs.pop("callback", self.daemon_setting),
            **kwargs,
        )

    def daemon_setting(self, ctx: Context, opt: CeleryOption, value: Any) -> Any:
        """Return ``value``, or what the configuration says in its place."""
        if value is not None or ctx.obj is None:
            return value
        return ctx.obj.app.conf.get(f"{ctx.command.name}_{self.name}")


class CeleryDaemonCommand(CeleryCommand):
    """A command that can run in the background."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(
            (
                DaemonOption(["--logfile", "-f"], type=click.Path(), help="File for the log; stderr if not given."),
                DaemonOption(
                    ["--pidfile"],
                    type=click.Path(),
                    help="File that holds the process id while it runs; none if not given.",
                ),
                DaemonOption(["--uid"], help="User to go on as, by name or number."),
                DaemonOption(["--gid"], help="Group to go on as, by name or number."),
                DaemonOption(["--umask"], help="What new files and directories do not allow, in octal."),
                DaemonOption(
                    ["--executable"], type=click.Path(), help="Python to run in the background, in place of this one."
                ),
            )
        )


class CommaSeparatedList(ParamType):
    """``a,b,c`` as a list."""

    name = "comma separated list"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return text.str_to_list(value)


class JsonArray(ParamType):
    """A JSON array."""

    name = "json array"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, list):
            return value
        return self._of_type(value, list, "array", param, ctx)

    def _of_type(self, value: str, kind: type, what: str, param: Any, ctx: Any) -> Any:
        try:
            found = json.loads(value)
        except ValueError as exc:
            self.fail(f"{value!r} is no JSON: {exc}", param, ctx)
        if not isinstance(found, kind):
            self.fail(f"{value!r} is no JSON {what}", param, ctx)
        return found


class JsonObject(JsonArray):
    """A JSON object."""

    name = "json object"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, dict):
            return value
        return self._of_type(value, dict, "object", param, ctx)


class ISO8601DateTime(ParamType):
    """A date and time in ISO 8601."""

    name = "iso-86091"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return maybe_iso8601(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is no ISO 8601 time, such as 2026-01-31T10:00:00", param, ctx)


class ISO8601DateTimeOrFloat(ParamType):
    """A date and time in ISO 8601, or seconds from now."""

    name = "iso-86091 or float"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, numbers.Real):
            return value
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
        try:
            return maybe_iso8601(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is neither seconds nor an ISO 8601 time", param, ctx)


class LogLevel(click.Choice):
    """The name of a log level, or its number."""

    def __init__(self) -> None:
        super().__init__(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL"))

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, numbers.Integral):
            return value
        return mlevel(super().convert(str(value).upper(), param, ctx))


JSON_ARRAY = JsonArray()
JSON_OBJECT = JsonObject()
ISO8601 = ISO8601DateTime()
ISO8601_OR_FLOAT = ISO8601DateTimeOrFloat()
LOG_LEVEL = LogLevel()
COMMA_SEPARATED_LIST = CommaSeparatedList()

"""``celery multi``: start, restart and stop several workers on this host."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, TextIO

import click
from click.core import ParameterSource

from celery import VERSION_BANNER
from celery.apps.multi import Cluster, MultiParser, NamespacedOptionParser, Node
from celery.bin.base import CeleryCommand, handle_preload_options
from celery.platforms import EX_FAILURE, EX_OK, EX_USAGE, signals
from celery.utils import term
from celery.utils.text import pluralize

__all__ = ("MultiTool",)

USAGE = """\
usage: {prog_name} start <node1 node2 nodeN|count> [worker options]
       {prog_name} stop <n1 n2 nN|count> [-SIG (default: -TERM)]
       {prog_name} stopwait <n1 n2 nN|count> [-SIG (default: -TERM)]
       {prog_name} restart <n1 n2 nN|count> [-SIG] [worker options]
       {prog_name} kill <n1 n2 nN|count>

       {prog_name} show <n1 n2 nN|count> [worker options]
       {prog_name} get <node> <n1 n2 nN|count> [worker options]
       {prog_name} names <n1 n2 nN|count>
       {prog_name} expand <template> <n1 n2 nN|count>
       {prog_name} help

These stand after the command:

    * --nosplash:   Do not print the version.
    * --quiet:      Print less.
    * --verbose:    Print more.
    * --no-color:   Print without colours.
"""

HELP = """\
Start, restart and stop several workers on this host.

A node is a name (`mail`, `mail@host`); one number is that many nodes: celery1, celery2, ...
All other options are those of `celery worker`, each for every node, or for some:

    celery multi start 3 -A proj -l INFO              three workers
    celery multi start mail video -A proj -c 4        two, by name
    celery multi start 3 -A proj -c 4 -c:1 8          the first has 8 processes
    celery multi start 9 -A proj -Q:1-3 mail -Q:4,5 video -Q celery
    celery multi start mail video -A proj -c:video 2
    celery multi restart 3 -A proj -l INFO            give the same options again
    celery multi stopwait 3                           and the same --pidfile to stop
    celery multi show 3 -A proj                       print what start would run

Options of its own:

    --pidfile=/var/run/celery/%n.pid        %n is the node's name, %h name@host, %d the host
    --logfile=/var/log/celery/%n%I.log      %I is -1, -2, ... in the worker's processes
    --executable=PYTHON                     program to start, else the Python that runs this
    --cmd='-m celery worker --detach'       what to run by it
    --append=WORDS                          words for the end of each command line
    --range-prefix=celery                   how nodes are called when a number is given
    --prefix=TEXT, --suffix=HOST            what stands around the names of nodes
    -n HOST, --hostname=HOST                the host in the names of nodes
    --                                      everything after it is passed on as it is

The exit status is 0 where all went well; else that of the first node that did not start.
"""


class TermLogger:
    """Prints for people, in colour where they want it."""

    splash_text = "celery multi v{version}"
    splash_context: Mapping[str, str] = {"version": VERSION_BANNER}

    #: Exit status.
    retcode = EX_OK

    prog_name = "celery multi"

    def setup_terminal(
        self,
        stdout: TextIO | None,
        stderr: TextIO | None,
        nosplash: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        no_color: bool = False,
        **kwargs: Any,
    ) -> None:
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.nosplash = nosplash
        self.quiet = quiet
        self.verbose = verbose
        self.no_color = no_color

    def ok(self, m: Any, newline: bool = True, file: TextIO | None = None) -> int:
        self.say(m, newline=newline, file=file)
        return EX_OK

    def say(self, m: Any, newline: bool = True, file: TextIO | None = None) -> None:
        print(m, file=file or self.stdout, end="\n" if newline else "", flush=True)

    def carp(self, m: Any, newline: bool = True, file: TextIO | None = None) -> None:
        self.say(m, newline, file or self.stderr)

    def error(self, msg: Any = None) -> int:
        """Say what is wrong, and how it is right; returns the exit status."""
        if msg:
            self.carp(msg)
        self.usage()
        return EX_USAGE

    def info(self, msg: Any, newline: bool = True) -> None:
        if self.verbose:
            self.note(msg, newline=newline)

    def note(self, msg: Any, newline: bool = True) -> None:
        if not self.quiet:
            self.say(str(msg), newline=newline)

    def usage(self) -> None:
        self.splash()
        self.say(USAGE.format(prog_name=self.prog_name))

    def splash(self) -> None:
        if not self.nosplash:
            self.note(self.colored.cyan(self.splash_text.format(**self.splash_context)))

    @property
    def colored(self) -> term.colored:
        return term.colored(enabled=not self.no_color and _is_terminal(self.stdout))


def _is_terminal(file: Any) -> bool:
    return bool(getattr(file, "isatty", None) and file.isatty())


def splash(function: Callable[..., Any]) -> Callable[..., Any]:
    """Say who speaks first."""

    @wraps(function)
    def wrapped(self: MultiTool, *args: Any, **kwargs: Any) -> Any:
        self.splash()
        return function(self, *args, **kwargs)

    return wrapped


def using_cluster(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command of a method that takes a cluster."""

    @wraps(function)
    def wrapped(self: MultiTool, *argv: str, **kwargs: Any) -> Any:
        return function(self, self.cluster_from_argv(argv), **kwargs)

    return wrapped


def using_cluster_and_sig(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command of a method that takes a cluster and, as ``-INT``, a signal."""

    @wraps(function)
    def wrapped(self: MultiTool, *argv: str, **kwargs: Any) -> Any:
        sig, rest = _signal_among(argv)
        return function(self, self.cluster_from_argv(rest), sig, **kwargs)

    return wrapped


def _signal_among(argv: Iterable[str]) -> tuple[int, list[str]]:
    """Return the signal that one of the words names, and the other words."""
    rest: list[str] = []
    found = int(signal.SIGTERM)
    for word in argv:
        name = word[1:]
        if word.startswith("-") and name.isupper() and len(name) > 1 and signals.supported(name):
            found = signals.signum(name)
        elif word.startswith("-") and name.isdigit():
            found = int(name)
        else:
            rest.append(word)
    return found, rest


def _takes_value() -> Callable[[str], bool | None]:
    """Return what tells of an option of the worker whether a value follows it."""
    from celery.bin.celery import celery
    from celery.bin.worker import worker

    table = {
        option: not getattr(param, "is_flag", False)
        for command in (celery, worker)
        for param in command.params
        for option in param.opts
    }
    # its own, which are written with the equals sign or without
    table.update(dict.fromkeys(("--cmd", "--append", "--prefix", "--suffix", "--range-prefix"), True))
    return table.get


class MultiTool(TermLogger):
    """The commands of ``celery multi``."""

    MultiParser = MultiParser
    OptionParser = NamespacedOptionParser

    reserved_options = [
        ("--nosplash", "nosplash"),
        ("--quiet", "quiet"),
        ("-q", "quiet"),
        ("--verbose", "verbose"),
        ("--no-color", "no_color"),
    ]

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        cmd: str | None = None,
        fh: TextIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        **kwargs: Any,
    ) -> None:
        self.env = env
        self.cmd = cmd
        self.setup_terminal(stdout or fh, stderr, **kwargs)
        self.fh = self.stdout
        self.commands: dict[str, Callable[..., Any]] = {
            "start": self.start,
            "show": self.show,
            "stop": self.stop,
            "stopwait": self.stopwait,
            "stop_verify": self.stop_verify,
            "restart": self.restart,
            "kill": self.kill,
            "names": self.names,
            "expand": self.expand,
            "get": self.get,
            "help": self.help,
        }

    def execute_from_commandline(self, argv: Iterable[str], cmd: str | None = None) -> int:
        """Run a command line, whose first word is the program's name; returns the exit status."""
        words = self._take_reserved(list(argv))
        self.cmd = self.cmd if cmd is None else cmd
        self.prog_name = os.path.basename(words.pop(0))
        if not self.validate_arguments(words):
            return self.error()
        return self.call_command(words[0], words[1:])

    def validate_arguments(self, argv: list[str]) -> bool:
        """Return whether a command comes first."""
        return bool(argv) and not argv[0].startswith("-")

    def call_command(self, command: str, argv: Iterable[str]) -> int:
        """Run a command; returns the exit status."""
        if command not in self.commands:
            return self.error(f"Invalid command: {command}")
        try:
            return self.commands[command](*argv) or EX_OK
        except (KeyError, ValueError) as exc:
            return self.error(exc.args[0] if exc.args else exc)
        except OSError as exc:
            self.carp(f"{exc.filename}: {exc.strerror}")
            return EX_FAILURE

    def _take_reserved(self, argv: list[str]) -> list[str]:
        """Take over the options that are for this program; returns the other words."""
        names = dict(self.reserved_options)
        end = argv.index("--") if "--" in argv else len(argv)
        for word in argv[:end]:
            if word in names:
                setattr(self, names[word], True)
        return [word for word in argv[:end] if word not in names] + argv[end:]

    # -- commands

    @splash
    @using_cluster
    def start(self, cluster: Cluster) -> int:
        self.note("> Starting nodes...")
        return _first_failure(cluster.start())

    @splash
    @using_cluster_and_sig
    def stop(self, cluster: Cluster, sig: int, **kwargs: Any) -> None:
        cluster.stop(sig=sig, **kwargs)

    @splash
    @using_cluster_and_sig
    def stopwait(self, cluster: Cluster, sig: int, **kwargs: Any) -> None:
        cluster.stopwait(sig=sig, **kwargs)

    stop_verify = stopwait

    @splash
    @using_cluster_and_sig
    def restart(self, cluster: Cluster, sig: int, **kwargs: Any) -> int:
        return _first_failure(cluster.restart(sig=sig, **kwargs))

    @using_cluster
    def names(self, cluster: Cluster) -> None:
        self.say("\n".join(node.name for node in cluster))

    def get(self, wanted: str = "", *argv: str) -> int:
        """Print the command line of one node, by its full name or by the short one."""
        if not wanted:
            return self.error("`get` wants the name of a node, and then the nodes.")
        for node in self.cluster_from_argv(argv):
            if wanted in (node.name, node.name.partition("@")[0]):
                return self.ok(" ".join(filter(None, node.argv)))
        return EX_FAILURE

    @using_cluster
    def show(self, cluster: Cluster) -> int:
        return self.ok("\n".join(" ".join(filter(None, node.argv_with_executable)) for node in cluster))

    @splash
    @using_cluster
    def kill(self, cluster: Cluster) -> None:
        cluster.kill()

    def expand(self, template: str = "", *argv: str) -> int:
        """Print the template as it is for each node."""
        if not template:
            return self.error("`expand` wants a template, and then the nodes.")
        for node in self.cluster_from_argv(argv):
            self.say(node.expander(template))
        return EX_OK

    def help(self, *argv: str) -> None:
        self.say(HELP)

    # -- nodes

    def cluster_from_argv(self, argv: Iterable[str], cmd: str | None = None) -> Cluster:
        """Return the nodes that the words after a command are about."""
        parser = self.OptionParser(argv, takes_value=_takes_value())
        parser.parse()
        cmd = cmd or self.cmd
        nodes: Iterator[Node] = (self.MultiParser() if cmd is None else self.MultiParser(cmd=cmd)).parse(parser)
        return self.Cluster(list(nodes), cmd=cmd)

    def Cluster(self, nodes: Iterable[Node], cmd: str | None = None) -> Cluster:
        """Return a cluster that tells what it does here."""
        return Cluster(
            nodes,
            cmd=cmd,
            env=self.env,
            on_stopping_preamble=self.on_stopping_preamble,
            on_send_signal=self.on_send_signal,
            on_still_waiting_for=self.on_still_waiting_for,
            on_still_waiting_progress=self.on_still_waiting_progress,
            on_still_waiting_end=self.on_still_waiting_end,
            on_node_start=self.on_node_start,
            on_node_restart=self.on_node_restart,
            on_node_shutdown_ok=self.on_node_shutdown_ok,
            on_node_status=self.on_node_status,
            on_node_signal_dead=self.on_node_signal_dead,
            on_node_signal=self.on_node_signal,
            on_node_down=self.on_node_down,
            on_child_spawn=self.on_child_spawn,
            on_child_signalled=self.on_child_signalled,
            on_child_failure=self.on_child_failure,
        )

    # -- what happens, as it happens

    def on_stopping_preamble(self, nodes: list[Node]) -> None:
        self.note(self.colored.blue("> Stopping nodes..."))

    def on_send_signal(self, node: Node, sig: str) -> None:
        self.note(f"\t> {node.name}: {sig} -> {node.pid}")

    def on_still_waiting_for(self, nodes: list[Node]) -> None:
        if nodes:
            pids = ", ".join(str(node.pid) for node in nodes)
            count = f"{len(nodes)} {pluralize(len(nodes), 'node')}"
            self.note(self.colored.blue(f"> Waiting for {count} -> {pids}..."), newline=False)

    def on_still_waiting_progress(self, nodes: list[Node]) -> None:
        self.note(".", newline=False)

    def on_still_waiting_end(self) -> None:
        self.note("")

    def on_node_signal_dead(self, node: Node) -> None:
        self.note(f"Could not signal {node.name} ({node.pid}): No such process")

    def on_node_start(self, node: Node) -> None:
        self.note(f"\t> {node.name}: ", newline=False)

    def on_node_restart(self, node: Node) -> None:
        self.note(self.colored.blue(f"> Restarting node {node.name}: "), newline=False)

    def on_node_down(self, node: Node) -> None:
        self.note(f"> {node.name}: {self.DOWN}")

    def on_node_shutdown_ok(self, node: Node) -> None:
        self.note(f"\n\t> {node.name}: {self.OK}")

    def on_node_status(self, node: Node, retval: int) -> None:
        self.note(self.FAILED if retval else self.OK)

    def on_node_signal(self, node: Node, sig: str) -> None:
        self.note(f"Sending {sig} to node {node.name} ({node.pid})")

    def on_child_spawn(self, node: Node, argstr: str, env: Mapping[str, str] | None) -> None:
        self.info(f"  {argstr}")

    def on_child_signalled(self, node: Node, signum: int) -> None:
        self.note(f"* Child was terminated by signal {signum}")

    def on_child_failure(self, node: Node, retcode: int) -> None:
        self.note(f"* Child terminated with exit code {retcode}")

    @property
    def OK(self) -> str:
        return str(self.colored.green("OK"))

    @property
    def FAILED(self) -> str:
        return str(self.colored.red("FAILED"))

    @property
    def DOWN(self) -> str:
        return str(self.colored.magenta("DOWN"))


def _first_failure(statuses: Iterable[int]) -> int:
    return next((status for status in statuses if status), EX_OK)


@click.command(
    cls=CeleryCommand,
    # not interspersed: what follows the command is the worker's, up to a `--` and beyond
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="`celery multi help` tells all.",
)
@click.pass_context
@handle_preload_options
def multi(ctx: click.Context, **kwargs: Any) -> None:
    """Start, restart and stop several workers on this host."""
    words = ["help"] if "--help" in ctx.args else list(ctx.args)
    end = words.index("--") if "--" in words else len(words)
    words[end:end] = _given_before(ctx) if words else []
    ctx.exit(MultiTool(no_color=ctx.obj.no_color).execute_from_commandline([TermLogger.prog_name, *words]))


def _given_before(ctx: click.Context) -> list[str]:
    """Return the options that stood before the word ``multi`` and are for the workers.

    The directory of ``--workdir`` is where we are by now.
    """
    program = ctx.parent
    assert program is not None
    return [
        f"--{name.replace('_', '-')}={program.params[name]}"
        for name in ("app", "broker", "result_backend", "loader", "config")
        if program.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]


def main() -> None:
    """Run ``celery multi`` as a program of its own; exits with its status."""
    sys.exit(MultiTool().execute_from_commandline(sys.argv))


if __name__ == "__main__":
    main()

"""One worker on this host: its command line, its files and its process."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from celery.platforms import IS_WINDOWS, Pidfile
from celery.utils.nodenames import gethostname, host_format, nodesplit

__all__ = ("Node", "build_expander", "build_nodename", "celery_exe", "format_opt")

Callback = Callable[..., Any]

CELERY_EXE = "celery"

#: Options of `celery` itself; they stand before the word `worker`.
GLOBAL_OPTIONS = {
    "-A",
    "--app",
    "-b",
    "--broker",
    "--result-backend",
    "--loader",
    "--config",
    "--workdir",
    "-C",
    "--no-color",
    "-q",
    "--quiet",
}

#: Options with a URL, in which a percent sign is part of the URL.
NO_TEMPLATES = {"-b", "--broker", "--result-backend"}


def celery_exe(*args: str) -> str:
    """Return the command line of the program with these words."""
    return " ".join((CELERY_EXE, *args))


def build_nodename(name: str, prefix: str, suffix: str) -> tuple[str, str, str]:
    """Return ``(short name, full name, host)`` of a node; one that names its host keeps it."""
    if "@" in name:
        full = host_format(name)
        short, host = nodesplit(full)
    else:
        short, host = name, suffix
        full = f"{prefix}{name}@{host}"
    return short, full, host


def build_expander(nodename: str, shortname: str, hostname: str) -> Callable[[str], str]:
    """Return what expands ``%h %n %d %p %N`` in templates; others (``%i``, ``%I``) are left to the worker."""
    letters = {"h": nodename, "n": shortname, "N": shortname, "d": hostname, "p": nodename, "%": "%"}
    return lambda template: re.sub(r"%(.)", lambda found: letters.get(found[1], found[0]), template)


def format_opt(opt: str, value: Any) -> str:
    """Return an option and its value as they stand on a command line."""
    if not value:
        return opt
    return f"{opt}={value}" if opt.startswith("--") else f"{opt} {value}"


class Node:
    """A worker to be started, or running: ``options`` are its command line by name."""

    def __init__(
        self,
        name: str,
        cmd: str | None = None,
        append: str | None = None,
        options: Mapping[str, Any] | None = None,
        extra_args: str | None = None,
    ) -> None:
        self.name = name if "@" in name else build_nodename(name, "", gethostname())[1]
        self.cmd = cmd or f"-m {celery_exe('worker', '--detach')}"
        self.append = append
        self.extra_args = extra_args or ""
        self.options = self._with_defaults(options or {})
        short, host = nodesplit(self.name)
        self.expander = build_expander(self.name, short, host)
        self.argv = self._prepare_argv()

    def _with_defaults(self, given: Mapping[str, Any]) -> OrderedDict[str, Any]:
        options = OrderedDict(given)
        for names, default in (
            (("-n", "--hostname"), self.name),
            (("--pidfile", "-p"), "/var/run/celery/%n.pid"),
            (("--logfile", "-f"), "/var/log/celery/%n%I.log"),
            (("--executable",), sys.executable),
        ):
            if not any(name in options for name in names):
                options[names[0]] = default
        return options

    def _prepare_argv(self) -> tuple[str, ...]:
        """Return the command line, those options first that belong to `celery` and not to `worker`."""
        words = self.cmd.split(" ")
        for option, value in reversed(self.options.items()):
            if option in GLOBAL_OPTIONS and CELERY_EXE in words:
                words.insert(words.index(CELERY_EXE) + 1, self._formatted(option, value))
        own = [
            self._formatted(option, value)
            for option, value in self.options.items()
            if option not in GLOBAL_OPTIONS or CELERY_EXE not in words
        ]
        rest = [self.expander(self.append)] if self.append else []
        return (" ".join(words), *own, self.extra_args, *rest)

    def _formatted(self, option: str, value: Any) -> str:
        if not value:
            return option
        text = str(value) if option in NO_TEMPLATES else self.expander(str(value))
        return format_opt(option, shlex.quote(text))

    # -- life

    def alive(self) -> bool:
        """Return whether the process in the pidfile is there."""
        return self.pid is not None

    def send(self, sig: int, on_error: Callback | None = None) -> bool:
        """Send a signal and return true, or call ``on_error(node)`` where there is no process."""
        pid = self.pid
        if pid is not None:
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass
            else:
                return True
        if on_error:
            on_error(self)
        return False

    def start(self, env: Mapping[str, str] | None = None, **kwargs: Any) -> int:
        """Start the worker, wait until it is in the background, and return the exit status (0: it runs).

        ``on_spawn(node, argstr=, env=)``, ``on_signalled(node, signum)`` and ``on_failure(node, status)`` are called.
        """
        self._make_directories()
        return self._wait(self.argv, path=self.executable, env=env, **kwargs)

    def _make_directories(self) -> None:
        """Make the directories of pidfile and log file, readable for all as those of other services are."""
        for path in (self.pidfile, self.logfile):
            os.makedirs(os.path.dirname(os.path.abspath(self._path_of(path))), mode=0o755, exist_ok=True)

    def _wait(
        self,
        argv: Iterable[str],
        path: str,
        env: Mapping[str, str] | None = None,
        on_spawn: Callback | None = None,
        on_signalled: Callback | None = None,
        on_failure: Callback | None = None,
    ) -> int:
        words = self.prepare_argv(argv, path)
        if on_spawn:
            on_spawn(self, argstr=" ".join(words), env=env)
        try:
            process = subprocess.Popen(words, env=None if env is None else dict(env))
        except OSError as exc:
            print(f"{path}: {exc.strerror}", file=sys.stderr)
            return self.handle_process_exit(127, on_signalled, on_failure)  # what shells say of such a program
        return self.handle_process_exit(process.wait(), on_signalled, on_failure)

    def handle_process_exit(
        self, retcode: int, on_signalled: Callback | None = None, on_failure: Callback | None = None
    ) -> int:
        """Tell what an exit status means, and return it, a signal's number as a positive one."""
        if retcode < 0:
            if on_signalled:
                on_signalled(self, -retcode)
            return -retcode
        if retcode > 0 and on_failure:
            on_failure(self, retcode)
        return retcode

    def prepare_argv(self, argv: Iterable[str], path: str) -> list[str]:
        """Return the words of a command line for ``exec``."""
        return shlex.split(" ".join([shlex.quote(path), *argv]), posix=not IS_WINDOWS)

    # -- what it is

    def getopt(self, *alt: str) -> Any:
        """Return the value of the first of these options that is there.

        Raises:
            KeyError: none is.
        """
        for name in alt:
            if name in self.options:
                return self.options[name]
        raise KeyError(alt[0])

    @property
    def pidfile(self) -> str:
        return self.expander(self.getopt("--pidfile", "-p"))

    @property
    def logfile(self) -> str:
        return self.expander(self.getopt("--logfile", "-f"))

    @property
    def pid(self) -> int | None:
        """The living process that holds the pidfile; ``None`` where there is none."""
        try:
            return Pidfile(self._path_of(self.pidfile)).holder()
        except (ValueError, OSError):
            return None

    def _path_of(self, path: str) -> str:
        """Return where the worker, in its directory, finds ``path``."""
        directory = self.options.get("--workdir") or ""
        return os.path.join(os.path.expanduser(directory), os.path.expanduser(path))

    @property
    def executable(self) -> str:
        return str(self.options["--executable"])

    @property
    def argv_with_executable(self) -> tuple[str, ...]:
        return (self.executable, *self.argv)

    @classmethod
    def from_kwargs(cls, name: str, **kwargs: Any) -> Node:
        """Return a node with options as keywords: ``c=3, app="proj"``; ``None`` and ``True`` stand for flags."""
        return cls(name, options=OrderedDict(map(_option_of, kwargs, kwargs.values())))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}>"


def _option_of(name: str, value: Any) -> tuple[str, str | None]:
    option = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
    return option, None if value is None or value is True else str(value)

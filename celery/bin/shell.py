"""``celery shell``: a Python prompt with the app and its tasks at hand."""

from __future__ import annotations

import code
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options

#: The kinds of prompt, in the order in which they are tried.
SHELLS = ("ipython", "bpython", "python")

#: Where a kind of prompt comes from; plain Python is always there.
PACKAGES = {"ipython": "IPython", "bpython": "bpython"}

CANVAS = ("chain", "chord", "chunks", "group", "signature", "subtask", "xmap", "xstarmap")


def _flag(name: str, short: str | None, text: str) -> Callable[..., Any]:
    names = [f"--{name}"] if short is None else [short, f"--{name}"]
    return click.option(*names, is_flag=True, cls=CeleryOption, help_group="Shell Options", help=text)


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@_flag("ipython", "-I", "Use IPython.")
@_flag("bpython", "-B", "Use bpython.")
@_flag("python", None, "Use Python's own prompt.")
@_flag("without-tasks", "-T", "Leave the names of the tasks out.")
@_flag("eventlet", None, "Patch the standard library by eventlet.")
@_flag("gevent", None, "Patch the standard library by gevent.")
@click.pass_context
@handle_preload_options
def shell(
    ctx: click.Context,
    ipython: bool = False,
    bpython: bool = False,
    python: bool = False,
    without_tasks: bool = False,
    eventlet: bool = False,
    gevent: bool = False,
    **kwargs: Any,
) -> None:
    """Open a Python prompt that knows the app.

    \b
    app, celery   the app
    Task          its task class
    chain, ...    what workflows are made of
    and each task by the name of its function.

    The first of IPython, bpython and Python that is installed is used.
    """
    # The standard library was patched by --eventlet and --gevent before anything was imported; see `celery.__main__`.
    names = _names(ctx.obj.app, without_tasks)
    asked_for = [kind for kind, is_given in zip(SHELLS, (ipython, bpython, python), strict=True) if is_given]
    _RUN[_chosen(asked_for)](names, ctx.args)


def _names(app: Any, without_tasks: bool) -> dict[str, Any]:
    """Return what is at hand at the prompt."""
    import celery

    sys.path.insert(0, os.getcwd())
    app.loader.import_default_modules()
    names: dict[str, Any] = {}
    if not without_tasks:
        names.update((task.__name__, task) for task in app.tasks.values() if not task.name.startswith("celery."))
    names.update({name: getattr(celery, name) for name in CANVAS})
    return {**names, "app": app, "celery": app, "Task": app.Task}


def _chosen(asked_for: list[str]) -> str:
    """Return the kind of prompt: the one that was asked for, else the first that is installed.

    Raises:
        click.UsageError: it is not installed, or more than one was asked for.
    """
    if len(asked_for) > 1:
        raise click.UsageError(f"Only one of {', '.join(f'--{kind}' for kind in asked_for)} can be used.")
    for kind in asked_for or SHELLS:
        if kind not in PACKAGES or find_spec(PACKAGES[kind]):
            return kind
    raise click.UsageError(f"--{asked_for[0]}: {asked_for[0]} is not installed (pip install {asked_for[0]}).")


def _run_ipython(names: dict[str, Any], words: list[str]) -> None:
    import_module("IPython").start_ipython(argv=words, user_ns=names)


def _run_bpython(names: dict[str, Any], words: list[str]) -> None:
    import_module("bpython").embed(names, args=words or None)


def _run_python(names: dict[str, Any], words: list[str]) -> None:
    try:
        import readline
        import rlcompleter
    except ImportError:  # no line editing on this system
        pass
    else:
        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    code.interact(local=names)


_RUN: dict[str, Callable[[dict[str, Any], list[str]], None]] = {
    "ipython": _run_ipython,
    "bpython": _run_bpython,
    "python": _run_python,
}

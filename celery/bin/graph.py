"""``celery graph``: draw boot steps and workers for Graphviz."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import click

from celery.bin.base import CeleryCommand, handle_preload_options
from celery.utils.graph import DependencyGraph, GraphFormatter
from celery.utils.text import str_to_list

#: As many workers, and threads of each, are drawn one by one.
MOST_WORKERS = 4
MOST_THREADS = 3

BLUEPRINTS = ("worker", "consumer")

_SMALL_DIGITS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@click.group()
@click.pass_context
@handle_preload_options
def graph(ctx: click.Context) -> None:
    """Draw boot steps or workers: `celery graph workers | dot -Tsvg -o workers.svg`."""


@graph.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.pass_context
def bootsteps(ctx: click.Context) -> None:
    """Draw what a worker starts, and what needs what.

    Words choose the blueprint: `worker`, `consumer`, or both.
    """
    chosen = [word.lower() for word in ctx.args] or list(BLUEPRINTS)
    unknown = [word for word in chosen if word not in BLUEPRINTS]
    if unknown:
        raise click.UsageError(f"There is no blueprint `{unknown[0]}`; there are {' and '.join(BLUEPRINTS)}.")
    worker = ctx.obj.app.WorkController()
    blueprints = [(worker if name == "worker" else worker.consumer).blueprint for name in BLUEPRINTS if name in chosen]
    first = blueprints[0]
    for other in blueprints[1:]:
        first.connect_with(other)
    first.graph.to_dot(sys.stdout)


@graph.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.pass_context
def workers(ctx: click.Context) -> None:
    """Draw workers between broker and result store.

    \b
    nodes:a,b,c    these workers; without it, those that answer
    threads:4,4,2  how many threads each of these has
    wmax:4         draw at most this many workers one by one
    tmax:3         and at most this many threads of each
    """
    words = _words(ctx.args)
    app = ctx.obj.app
    wanted_threads = words.get("threads") or []
    if "nodes" in words:
        threads = dict.fromkeys(words["nodes"], 0)
        if len(wanted_threads) > len(threads):
            raise click.UsageError(f"threads: names {len(wanted_threads)} numbers for {len(threads)} nodes.")
        threads.update(zip(threads, map(_number, wanted_threads)))  # noqa: B905 - numbers may be fewer
    else:
        threads = {name: _slots(stats) for name, stats in (app.control.inspect().stats() or {}).items()}
    most_workers = _number(words.get("wmax", words.get("nmax", MOST_WORKERS)))
    most_threads = _number(words.get("tmax", MOST_THREADS))

    found = _cluster(app, threads, most_workers, most_threads)
    found.to_dot(sys.stdout)


def _words(given: Iterable[str]) -> dict[str, Any]:
    """Return words like ``name:value`` as a mapping; nodes and threads have lists.

    Raises:
        click.UsageError: a word is not like that, or of no meaning.
    """
    words: dict[str, Any] = {}
    for word in given:
        name, colon, value = word.partition(":")
        if not colon or name not in ("nodes", "threads", "wmax", "nmax", "tmax"):
            raise click.UsageError(f"`{word}` is none of nodes:, threads:, wmax: and tmax:.")
        words[name] = str_to_list(value) if name in ("nodes", "threads") else value
    return words


def _number(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise click.UsageError(f"`{value}` is no number.") from None


def _slots(stats: Mapping[str, Any]) -> int:
    """Return how many tasks a worker that gave these ``stats`` runs at once."""
    return int((stats.get("pool") or {}).get("max-concurrency") or 0)


class _Node:
    """Something in the drawing; ``name`` is unique, ``label`` is shown."""

    shape: Mapping[str, Any] = {}
    edge: Mapping[str, Any] = {}

    def __init__(self, name: str, label: str | None = None) -> None:
        self.name = name
        self.look = {**self.shape, **({} if label is None else {"label": label})}


class _Broker(_Node):
    shape = {"shape": "circle", "fillcolor": "cadetblue3", "color": "cadetblue4", "height": 1}


class _Store(_Node):
    shape = {"shape": "folder", "fillcolor": "peachpuff3", "color": "black", "width": 2, "height": 1}


class _Worker(_Node):
    shape = {"fillcolor": "palegreen3", "color": "palegreen4"}


class _Thread(_Node):
    shape = {
        "shape": "oval",
        "fillcolor": "lightcyan4",
        "color": "black",
        "fontcolor": "yellow",
        "fontsize": 10,
        "width": 0.3,
    }
    edge = {"arrowhead": "none", "arrowtail": "tee"}


class _Formatter(GraphFormatter):
    def label(self, obj: Any) -> Any:
        return obj and obj.name

    def node(self, obj: Any, **attrs: Any) -> bytes:
        return self.draw_node(obj, obj.look, attrs)

    terminal_node = node

    def edge(self, a: Any, b: Any, **attrs: Any) -> bytes:
        return self.draw_edge(a, b, self.edge_scheme, {**a.edge, **attrs})


def _cluster(app: Any, threads: Mapping[str, int], most_workers: int, most_threads: int) -> DependencyGraph:
    """Return the graph: threads at workers, workers at broker and result store."""
    drawn = DependencyGraph(formatter=_Formatter())
    broker = _Broker(app.connection_for_read().as_uri())
    ends: list[_Node] = [broker]
    drawn.add_arc(broker)
    if app.conf.result_backend:
        ends.append(_Store(app.backend.as_uri()))
        drawn.add_arc(ends[1])
    number = count(1)
    for name in _shortened(list(threads), most_workers, "W"):
        worker = _Worker(name)
        drawn.add_arc(worker)
        for end in ends:
            drawn.add_edge(worker, end)
        for label in _shortened([str(index) for index in range(threads.get(name, 0))], most_threads, "P"):
            thread = _Thread(f"thr-{next(number)}", label)
            drawn.add_arc(thread)
            drawn.add_edge(thread, worker)
    return drawn


def _shortened(names: list[str], most: int, letter: str) -> Iterator[str]:
    """Yield ``names``, those in the middle of many as one: ``W⎨…₁₂⎬``."""
    if len(names) <= most or most < 2:
        yield from names
        return
    yield from names[: most - 2]
    left_out = len(names) - (most - 1)
    yield f"{letter}⎨…{str(left_out).translate(_SMALL_DIGITS)}⎬"
    yield names[-1]

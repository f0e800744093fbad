"""Several workers on one host: what ``celery multi`` is told, turned into nodes that start and stop.

Command line → `NamespacedOptionParser` → `MultiParser` → `Node`, many of which are a `Cluster`.
"""

from __future__ import annotations

import shlex
import signal
import warnings
from collections import OrderedDict, UserList, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic, sleep
from typing import Any

from celery.apps import nodes
from celery.apps.nodes import Callback, Node, build_expander, build_nodename, celery_exe, format_opt
from celery.exceptions import CeleryWarning
from celery.platforms import signal_name
from celery.platforms.pidfiles import is_alive
from celery.utils.nodenames import gethostname, host_format

__all__ = (
    "Cluster",
    "MultiParser",
    "NamespacedOptionParser",
    "Node",
    "build_expander",
    "build_nodename",
    "celery_exe",
    "format_opt",
)

#: Seconds between looks at nodes that are to end.
LOOK_INTERVAL = 0.1
#: Seconds for which a worker's pidfile is waited for.
PIDFILE_PATIENCE = 5


class NamespacedOptionParser:
    """Sorts words into ``values``, ``options`` and options for some nodes only (``namespaces``).

    ``-c 3`` is an option, ``-c:node 3`` one for a node.  ``takes_value`` tells of an option whether a value follows
    it, or returns ``None`` where it does not know; then a short option takes the next word that is no option.
    """

    def __init__(self, args: Iterable[str], takes_value: Callable[[str], bool | None] = lambda option: None) -> None:
        self.args = list(args)
        self.takes_value = takes_value
        self.options: OrderedDict[str, str | None] = OrderedDict()
        self.values: list[str] = []
        self.passthrough = ""
        self.namespaces: defaultdict[str, OrderedDict[str, str | None]] = defaultdict(OrderedDict)

    def parse(self) -> None:
        """Sort the words."""
        words = list(self.args)
        while words:
            word = words.pop(0)
            if word == "--":
                self.passthrough = shlex.join([word, *words])
                return
            if word.startswith("--"):
                self.process_long_opt(word[2:], self._next_value(word, words))
            elif word.startswith("-") and len(word) > 1:
                self.process_short_opt(word[1:], self._next_value(word, words))
            else:
                self.values.append(word)

    def _next_value(self, word: str, words: list[str]) -> str | None:
        """Take the value of the option ``word`` from ``words``, if it has one there."""
        if "=" in word and word.startswith("--"):
            return None
        takes_value = self.takes_value(word.partition(":")[0])
        if takes_value is None:
            takes_value = not word.startswith("--") and bool(words) and not words[0].startswith("-")
        return words.pop(0) if takes_value and words else None

    def process_long_opt(self, arg: str, value: str | None = None) -> None:
        """Add ``name=value`` or ``name``."""
        if "=" in arg:
            arg, value = arg.split("=", 1)
        self.add_option(arg, value, short=False)

    def process_short_opt(self, arg: str, value: str | None = None) -> None:
        self.add_option(arg, value, short=True)

    def optmerge(self, ns: str, defaults: Mapping[str, str | None] | None = None) -> OrderedDict[str, str | None]:
        """Return the options of a node: all nodes' (or ``defaults``), and over them its own."""
        return OrderedDict(self.options if defaults is None else defaults, **self.namespaces[ns])

    def add_option(self, name: str, value: str | None, short: bool = False, ns: str | None = None) -> None:
        """Add an option; in ``name`` or ``ns`` stands for which nodes."""
        if ns is None:
            name, _, ns = name.partition(":")
        target = self.namespaces[ns] if ns else self.options
        target[("-" if short else "--") + name] = value


class MultiParser:
    """Makes nodes of what a `NamespacedOptionParser` found."""

    Node = nodes.Node

    def __init__(
        self,
        cmd: str = f"-m {celery_exe('worker', '--detach')}",
        append: str = "",
        prefix: str = "",
        suffix: str = "",
        range_prefix: str = "celery",
    ) -> None:
        self.cmd = cmd
        self.append = append
        self.prefix = prefix
        self.suffix = suffix
        self.range_prefix = range_prefix

    def parse(self, p: NamespacedOptionParser) -> Iterator[nodes.Node]:
        """Yield the nodes; one number stands for so many.

        Raises:
            KeyError: an option is for a number that no node has.
        """
        shared = OrderedDict(p.options)
        cmd = shared.pop("--cmd", None) or self.cmd
        append = shared.pop("--append", None) or self.append
        hostname = shared.pop("--hostname", None) or shared.pop("-n", None) or gethostname()
        prefix = shared.pop("--prefix", None) or self.prefix
        suffix = shared.pop("--suffix", None) or self.suffix or hostname
        suffix = "" if suffix in ('""', "''") else host_format(suffix)
        range_prefix = shared.pop("--range-prefix", None) or self.range_prefix

        is_count = len(p.values) == 1 and p.values[0].isdigit()
        names = [f"{range_prefix}{index}" for index in range(1, int(p.values[0]) + 1)] if is_count else list(p.values)
        own = _options_by_node(p, names, is_count)
        for index, name in enumerate(names):
            full = build_nodename(name, "" if is_count else prefix, suffix)[1]
            yield self.Node(full, cmd, append, OrderedDict(shared, **own[index]), p.passthrough)


def _options_by_node(
    p: NamespacedOptionParser, names: list[str], is_count: bool
) -> defaultdict[int, OrderedDict[str, str | None]]:
    """Return the options of single nodes by their place in ``names``."""
    own: defaultdict[int, OrderedDict[str, str | None]] = defaultdict(OrderedDict)
    for namespace, options in p.namespaces.items():
        for index in _places(namespace, names, is_count):
            own[index].update(options)
    return own


def _places(namespace: str, names: list[str], is_count: bool) -> list[int]:
    """Return which nodes ``a``, ``1,3``, ``2-4`` or a list of these stands for.

    A name that is not among ``names`` stands for none: options of a whole cluster are given to a part of it, too.
    """
    places: list[int] = []
    for word in namespace.split(","):
        first, dash, last = word.partition("-")
        if word in names:
            places.append(names.index(word))
        elif is_count and dash and first.isdigit() and last.isdigit():
            places.extend(range(int(first) - 1, min(int(last), len(names))))
        elif word.isdigit() and 1 <= int(word) <= len(names):
            places.append(int(word) - 1)
        elif word.isdigit():
            raise KeyError(f"There is no node {word!r}; there are {', '.join(names) or 'none'}.")
        else:
            text = f"No node {word!r} among {', '.join(names) or 'none'}: what is for it alone has no effect."
            warnings.warn(text, CeleryWarning, stacklevel=2)
    return places


class Cluster(UserList):  # type: ignore[type-arg]  # its items are in a property
    """Nodes that are started and stopped together."""

    def __init__(
        self,
        nodes: Iterable[Node],
        cmd: str | None = None,
        env: Mapping[str, str] | None = None,
        on_stopping_preamble: Callback | None = None,
        on_send_signal: Callback | None = None,
        on_still_waiting_for: Callback | None = None,
        on_still_waiting_progress: Callback | None = None,
        on_still_waiting_end: Callback | None = None,
        on_node_start: Callback | None = None,
        on_node_restart: Callback | None = None,
        on_node_shutdown_ok: Callback | None = None,
        on_node_status: Callback | None = None,
        on_node_signal: Callback | None = None,
        on_node_signal_dead: Callback | None = None,
        on_node_down: Callback | None = None,
        on_child_spawn: Callback | None = None,
        on_child_signalled: Callback | None = None,
        on_child_failure: Callback | None = None,
    ) -> None:
        self.nodes = list(nodes)
        self.cmd = cmd or celery_exe("worker")
        self.env = env
        self.on_stopping_preamble = on_stopping_preamble or _ignore
        self.on_send_signal = on_send_signal or _ignore
        self.on_still_waiting_for = on_still_waiting_for or _ignore
        self.on_still_waiting_progress = on_still_waiting_progress or _ignore
        self.on_still_waiting_end = on_still_waiting_end or _ignore
        self.on_node_start = on_node_start or _ignore
        self.on_node_restart = on_node_restart or _ignore
        self.on_node_shutdown_ok = on_node_shutdown_ok or _ignore
        self.on_node_status = on_node_status or _ignore
        self.on_node_signal = on_node_signal or _ignore
        self.on_node_signal_dead = on_node_signal_dead or _ignore
        self.on_node_down = on_node_down or _ignore
        self.on_child_spawn = on_child_spawn or _ignore
        self.on_child_signalled = on_child_signalled or _ignore
        self.on_child_failure = on_child_failure or _ignore

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.nodes!r}>"

    @property
    def data(self) -> list[Node]:  # type: ignore[override]  # it cannot be replaced
        return self.nodes

    def find(self, name: str) -> Node:
        """Return the node of that full name.

        Raises:
            KeyError: there is none.
        """
        for node in self:
            if node.name == name:
                return node  # type: ignore[no-any-return]  # UserList does not say what is in it
        raise KeyError(name)

    def start(self) -> list[int]:
        """Start all nodes; return their exit statuses."""
        return [self.start_node(node) for node in self]

    def start_node(self, node: Node) -> int:
        self.on_node_start(node)
        status = self._start_node(node)
        self.on_node_status(node, status)
        return status

    def _start_node(self, node: Node) -> int:
        status = node.start(
            self.env,
            on_spawn=self.on_child_spawn,
            on_signalled=self.on_child_signalled,
            on_failure=self.on_child_failure,
        )
        # Until it has its pidfile, a worker in the background can be neither found nor stopped.
        deadline = monotonic() + PIDFILE_PATIENCE
        while status == 0 and not node.alive() and monotonic() < deadline:
            sleep(LOOK_INTERVAL)
        return status

    def send_all(self, sig: int) -> None:
        """Send a signal to all nodes that run."""
        for node in self.getpids(on_down=self.on_node_down):
            self.on_node_signal(node, signal_name(sig))
            node.send(sig, self.on_node_signal_dead)

    def kill(self) -> None:
        self.send_all(signal.SIGKILL)

    def restart(self, sig: int = signal.SIGTERM) -> list[int]:
        """Stop each node and start it again as soon as it is down; return the exit statuses."""
        statuses: dict[int, int] = {}

        def start_again(node: Node) -> None:
            self.on_node_restart(node)
            status = statuses[id(node)] = self._start_node(node)
            self.on_node_status(node, status)

        self._stop_nodes(retry=2, on_down=start_again, sig=sig)
        return [statuses[id(node)] for node in self]

    def stop(self, retry: float | None = None, callback: Callback | None = None, sig: int = signal.SIGTERM) -> None:
        """Send ``sig`` to all nodes; with ``retry`` (seconds between tellings) wait until they are down."""
        self._stop_nodes(retry=retry, on_down=callback, sig=sig)

    def stopwait(self, retry: float | None = 2, callback: Callback | None = None, sig: int = signal.SIGTERM) -> None:
        self._stop_nodes(retry=retry, on_down=callback, sig=sig)

    def _stop_nodes(self, retry: float | None, on_down: Callback | None, sig: int) -> None:
        on_down = on_down or self.on_node_down
        nodes = list(self.getpids(on_down=on_down))
        if nodes:
            for node in self.shutdown_nodes(nodes, sig=sig, retry=retry):
                on_down(node)

    def shutdown_nodes(
        self, nodes: Iterable[Node], sig: int = signal.SIGTERM, retry: float | None = None
    ) -> Iterator[Node]:
        """Send ``sig`` to ``nodes`` and yield each that is down; without ``retry`` only those that were."""
        waiting = list(nodes)
        self.on_stopping_preamble(waiting)
        pids = {id(node): node.pid for node in waiting}
        for node in list(waiting):
            self.on_send_signal(node, signal_name(sig))
            if not node.send(sig, self.on_node_signal_dead):
                waiting.remove(node)
                yield node
        if retry:
            yield from self._await_end(waiting, pids, retry)

    def _await_end(self, waiting: list[Node], pids: Mapping[int, int | None], retry: float) -> Iterator[Node]:
        self.on_still_waiting_for(waiting)
        told_at = monotonic()
        while waiting:
            ended = [node for node in waiting if not is_alive(pids[id(node)] or 0)]
            for node in ended:
                waiting.remove(node)
                self.on_node_shutdown_ok(node)
                yield node
            if ended and waiting:
                self.on_still_waiting_for(waiting)
            if waiting:
                sleep(LOOK_INTERVAL)
                if monotonic() - told_at >= retry:
                    self.on_still_waiting_progress(waiting)
                    told_at = monotonic()
        self.on_still_waiting_end()

    def getpids(self, on_down: Callback | None = None) -> Iterator[Node]:
        """Yield the nodes that run; the others are given to ``on_down``."""
        for node in self:
            if node.alive():
                yield node
            elif on_down:
                on_down(node)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Where nobody wants to know."""

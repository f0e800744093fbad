"""Graphs of dependencies, and drawing them for Graphviz."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO

__all__ = ("CycleError", "DOT", "DependencyGraph", "GraphFormatter")


class DOT:
    """The pieces of Graphviz's language."""

    HEAD = "\n{IN}{type} {id} {{\n{INp}graph [{attrs}]\n"
    ATTR = "{name}={value}"
    NODE = '{INp}"{0}" [{attrs}]'
    EDGE = '{INp}"{0}" {dir} "{1}" [{attrs}]'
    ATTRSEP = ", "
    DIRS = {"graph": "--", "digraph": "->"}
    TAIL = "{IN}}}"


class CycleError(Exception):
    """Things depend on each other in a circle."""


class DependencyGraph:
    """Which thing needs which: ``it`` gives pairs of a thing and the things it needs.

    ``formatter`` makes the drawing of ``to_dot``.
    """

    def __init__(self, it: Iterable[tuple[Any, Iterable[Any]]] | None = None, formatter: Any = None) -> None:
        self.formatter = formatter or GraphFormatter()
        #: thing → what it needs
        self.adjacent: dict[Any, list[Any]] = {}
        if it is not None:
            self.update(it)

    def add_arc(self, obj: Any) -> None:
        """Add a thing that needs nothing so far."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, A: Any, B: Any) -> None:
        """Say that ``A`` needs ``B``; ``A`` must be there."""
        self[A].append(B)

    def connect(self, graph: DependencyGraph) -> None:
        """Add what another graph has."""
        self.adjacent.update(graph.adjacent)

    def update(self, it: Iterable[tuple[Any, Iterable[Any]]]) -> None:
        """Add pairs of a thing and the things it needs."""
        pairs = [(obj, list(needed)) for obj, needed in it]
        for obj, _ in pairs:
            self.add_arc(obj)
        for obj, needed in pairs:
            for other in needed:
                self.add_edge(obj, other)

    def topsort(self) -> list[Any]:
        """Return all things, each after those it needs.

        Raises:
            CycleError: there is a circle; its members are named.
        """
        done: dict[Any, None] = {}
        for obj in self.adjacent:
            self._visit(obj, done, {})
        return list(done)

    def _visit(self, obj: Any, done: dict[Any, None], path: dict[Any, None]) -> None:
        if obj in done:
            return
        if obj in path:
            circle = [*path][[*path].index(obj) :]
            raise CycleError(f"Dependencies form a circle: {' → '.join(map(str, [*circle, obj]))}")
        path[obj] = None
        for needed in self.adjacent.get(obj, ()):
            self._visit(needed, done, path)
        del path[obj]
        done[obj] = None

    def valency_of(self, obj: Any) -> int:
        """Return how many things ``obj`` needs, directly or not, each counted on every way to it."""
        needed = self.adjacent.get(obj, ())
        return len(needed) + sum(map(self.valency_of, needed))

    def edges(self) -> Iterator[Any]:
        """Yield the things that need others."""
        return (obj for obj, needed in self.adjacent.items() if needed)

    def to_dot(self, fh: TextIO, formatter: GraphFormatter | None = None) -> None:
        """Write the graph to ``fh`` in Graphviz's language."""
        draw = formatter or self.formatter
        seen = set()

        def write(piece: bytes) -> None:
            print(piece.decode(), file=fh)

        def draw_node(how: Callable[[Any], bytes], obj: Any) -> None:
            label = draw.label(obj)
            if label not in seen:
                seen.add(label)
                write(how(obj))

        write(draw.head())
        for obj, needed in self.items():
            draw_node(draw.node if needed else draw.terminal_node, obj)
            for other in needed:
                draw_node(draw.node if self.adjacent.get(other) else draw.terminal_node, other)
                write(draw.edge(obj, other))
        write(draw.tail())

    def format(self, obj: Any) -> Any:
        """Return what the formatter calls ``obj``."""
        return self.formatter.label(obj) if self.formatter else obj

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __len__(self) -> int:
        return len(self.adjacent)

    def __contains__(self, obj: Any) -> bool:
        return obj in self.adjacent

    def items(self) -> Iterable[tuple[Any, list[Any]]]:
        return self.adjacent.items()

    iteritems = items

    def __repr__(self) -> str:
        return "\n".join(self.repr_node(node) for node in self)

    def repr_node(self, obj: Any, level: int = 1, fmt: str = "{0}({1})") -> str:
        """Return ``obj`` and, indented, what it needs."""
        lines = [fmt.format(obj, self.valency_of(obj))]
        for other in self.adjacent.get(obj, ()):
            lines.append("     " * level + self.repr_node(other, level + 1, fmt))
        return "\n".join(lines)


class GraphFormatter:
    """How nodes and edges look."""

    _attr = DOT.ATTR.strip()
    _node = DOT.NODE.strip()
    _edge = DOT.EDGE.strip()
    _head = DOT.HEAD.strip()
    _tail = DOT.TAIL.strip()
    _attrsep = DOT.ATTRSEP
    _dirs = dict(DOT.DIRS)

    scheme: Mapping[str, Any] = {
        "shape": "box",
        "arrowhead": "vee",
        "style": "filled",
        "fontname": "HelveticaNeue",
    }
    edge_scheme: Mapping[str, Any] = {"color": "darkseagreen4", "arrowcolor": "black", "arrowsize": 0.7}
    node_scheme: Mapping[str, Any] = {"fillcolor": "palegreen3", "color": "palegreen4"}
    term_scheme: Mapping[str, Any] = {"fillcolor": "palegreen1", "color": "palegreen2"}
    graph_scheme: Mapping[str, Any] = {"bgcolor": "mintcream"}

    def __init__(
        self,
        root: Any = None,
        type: str | None = None,
        id: str | None = None,
        indent: int = 0,
        inw: str = " " * 4,
        **scheme: Any,
    ) -> None:
        self.id = id or "dependencies"
        self.root = root
        self.type = type or "digraph"
        self.direction = self._dirs[self.type]
        self.IN = inw * (indent or 0)
        self.INp = self.IN + inw
        self.scheme = {**self.scheme, **scheme}
        self.graph_scheme = {**self.graph_scheme, "root": self.label(self.root)}

    def attr(self, name: str, value: Any) -> bytes:
        return self.FMT(self._attr, name=name, value=f'"{value}"')

    def attrs(self, d: Mapping[str, Any], scheme: Mapping[str, Any] | None = None) -> str:
        look = {**self.scheme, **(scheme or {}), **(d or {})}
        return self._attrsep.join(self.attr(name, value).decode() for name, value in look.items())

    def head(self, **attrs: Any) -> bytes:
        return self.FMT(self._head, id=self.id, type=self.type, attrs=self.attrs(attrs, self.graph_scheme))

    def tail(self) -> bytes:
        return self.FMT(self._tail)

    def label(self, obj: Any) -> Any:
        """Return the text that stands for ``obj``."""
        return obj

    def node(self, obj: Any, **attrs: Any) -> bytes:
        return self.draw_node(obj, self.node_scheme, attrs)

    def terminal_node(self, obj: Any, **attrs: Any) -> bytes:
        return self.draw_node(obj, self.term_scheme, attrs)

    def edge(self, a: Any, b: Any, **attrs: Any) -> bytes:
        return self.draw_edge(a, b, **attrs)

    def FMT(self, fmt: str, *args: Any, **kwargs: Any) -> bytes:
        return fmt.format(*args, **{**kwargs, "IN": self.IN, "INp": self.INp}).encode()

    def draw_edge(
        self, a: Any, b: Any, scheme: Mapping[str, Any] | None = None, attrs: Mapping[str, Any] | None = None
    ) -> bytes:
        look = self.attrs(attrs or {}, {**self.edge_scheme, **(scheme or {})})
        return self.FMT(self._edge, self.label(a), self.label(b), dir=self.direction, attrs=look)

    def draw_node(
        self, obj: Any, scheme: Mapping[str, Any] | None = None, attrs: Mapping[str, Any] | None = None
    ) -> bytes:
        return self.FMT(self._node, self.label(obj), attrs=self.attrs(attrs or {}, scheme))

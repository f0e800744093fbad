"""Random canvases of one pure function, as plain data that can be evaluated without any canvas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

from celery import Celery, chain, chord, group

MODULUS = 1_000_003


def digest(value: Any, salt: int) -> int:
    """Return a number that depends on all of ``value``, which is a number or a list of such values."""
    flat = value if isinstance(value, (list, tuple)) else [value]
    total = salt
    for item in flat:
        total = (total * 31 + (digest(item, 7) if isinstance(item, (list, tuple)) else item)) % MODULUS
    return total


def add_task(app: Celery) -> None:
    app.task(digest, shared=False, name="step")


@dataclass(frozen=True)
class Step:
    salt: int

    def build(self, app: Any) -> Any:
        return app.tasks["step"].s(self.salt)

    def value(self, given: Any) -> Any:
        return digest(given, self.salt)


@dataclass(frozen=True)
class Chain:
    parts: tuple[Any, ...]
    by_operator: bool

    def build(self, app: Any) -> Any:
        built = [part.build(app) for part in self.parts]
        return reduce(lambda left, right: left | right, built) if self.by_operator else chain(*built)

    def value(self, given: Any) -> Any:
        for part in self.parts:
            given = part.value(given)
        return given


@dataclass(frozen=True)
class Group:
    """Two members or more: a group of one within a chain is that one."""

    parts: tuple[Any, ...]

    def build(self, app: Any) -> Any:
        return group([part.build(app) for part in self.parts])

    def value(self, given: Any) -> Any:
        values = []
        for part in self.parts:
            value = part.value(given)
            values.extend(value) if isinstance(part, Group) else values.append(value)
        return values


@dataclass(frozen=True)
class Chord:
    header: Group
    body: Any

    def build(self, app: Any) -> Any:
        return chord([part.build(app) for part in self.header.parts], self.body.build(app))

    def value(self, given: Any) -> Any:
        return self.body.value(self.header.value(given))


def strategy() -> Any:
    """Return the strategy that draws canvases up to depth 4."""
    from hypothesis import strategies as st  # workers need none

    steps = st.integers(1, 999).map(Step)

    def deeper(inner: Any) -> Any:
        groups = st.lists(inner, min_size=2, max_size=3).map(lambda parts: Group(tuple(parts)))
        return st.one_of(
            st.builds(Chain, st.lists(inner, min_size=2, max_size=4).map(tuple), st.booleans()),
            groups,
            st.builds(Chord, groups, inner),
        )

    return deeper(st.one_of(steps, deeper(st.one_of(steps, deeper(st.one_of(steps, deeper(steps)))))))

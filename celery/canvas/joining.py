"""What ``a | b`` means, for each pair.  No other room knows.

| left          | right         | gives                                                      |
| ------------- | ------------- | ---------------------------------------------------------- |
| group         | anything      | a chord: the group is the header, ``right`` the body         |
| chord         | task, chord   | the chord, with ``right`` joined to its body                 |
| chord         | chain, group  | a chain: the chord, then the steps or the group              |
| chain         | anything      | the chain with ``right`` joined to its last step            |
| anything else | anything      | a chain of both                                            |

To the right of anything but a group, a group of one is that one.  A chain within a chain is its steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.canvas.chains import _chain
from celery.canvas.chords import _chord as chord
from celery.canvas.groups import group, maybe_unroll_group
from celery.canvas.signatures import Signature, as_signature

__all__ = ("Steps", "chain_of", "joined", "steps_of", "unrolled")


def joined(left: Any, right: Any) -> Any:
    """Return the workflow that ``left | right`` stands for.

    Raises:
        TypeError: one of them is no signature, nor a mapping that stands for one.
    """
    left = as_signature(left, None, "What stands left of |")
    right = as_signature(right, None, "What stands right of |", clone=right is left)
    match left, right if isinstance(left, group) else unrolled(right):
        case group(), _:
            return chord(left, body=right, app=left._app)
        case chord(body=None), body:
            return left.with_body(body)
        case chord(), (_chain() | group()) as then:
            return Steps([left], shared=True).followed_by(then).workflow(left._app)
        case chord(), then:
            return left.with_body(joined(left.body, then))
        case _chain(), then:
            return Steps(left.share_steps(), shared=True).and_then(steps_of(then)).workflow(left._app)
        case _, then:
            return Steps([left]).followed_by(then).workflow(left._app)


def chain_of(tasks: Iterable[Any], app: Any = None) -> Any:
    """Return ``tasks`` joined one after the other; a chain, unless a group and what follows make a chord of it all."""
    steps = Steps()
    for index, task in enumerate(tasks):
        sig = as_signature(task, app, f"Item {index} of the chain", clone=not isinstance(task, _chain))
        steps.shared |= isinstance(sig, _chain)
        steps.and_then(steps_of(unrolled(sig)))
    return steps.workflow(app)


def unrolled(sig: Any) -> Any:
    """Return the only member of a group of one (of a group of one, ...), else ``sig`` itself."""
    return maybe_unroll_group(sig) if isinstance(sig, group) else sig


def steps_of(sig: Any) -> list[Any]:
    """Return the steps of a chain, with its callbacks on the last and its errbacks on all; else ``[sig]``."""
    return sig.share_steps() if isinstance(sig, _chain) else [sig]


class Steps:
    """Steps of a chain in the making: each that is added may join the last one.  Costs no more than what is added."""

    def __init__(self, steps: Iterable[Any] = (), shared: bool = False) -> None:
        self.steps = list(steps)
        self.shared = shared
        self.began_with_group = False
        #: The body of the last step, while that is a chord and its body grows.
        self.body: Steps | None = None

    def and_then(self, steps: Iterable[Any]) -> Steps:
        """Add ``steps``, and return itself."""
        for step in steps:
            self._add(step)
        return self

    def followed_by(self, sig: Any) -> Steps:
        """Add ``sig``, or its steps, as they are: nothing joins the last step; return itself."""
        self.shared |= isinstance(sig, _chain)
        self.steps.extend(steps_of(sig))
        return self

    def _add(self, step: Any) -> None:
        last = self.steps[-1] if self.steps else None
        match last, step:
            case group(), _:
                self.began_with_group = len(self.steps) == 1
                self.steps[-1] = chord(last, body=step, app=last._app)
            case chord(), chord():
                self._append(step)
            case chord(), _ if self.body is not None or last.body is not None:
                self._add_to_body(last, step)
            case _:
                self._append(step)

    def _add_to_body(self, last: Any, step: Any) -> None:
        if self.body is None:
            self.steps[-1] = last.with_body(None)
            self.body = Steps(steps_of(last.body))
        self.body._add(step)

    def _append(self, step: Any) -> None:
        self._end_body()
        self.steps.append(step)

    def _end_body(self) -> None:
        if self.body is not None:
            last = self.steps[-1]
            last.body = self.body.workflow(last._app)
            self.body = None

    def workflow(self, app: Any = None) -> Any:
        """Return what the steps are together."""
        self._end_body()
        if len(self.steps) == 1 and self.began_with_group:
            return self.steps[0]
        whole = _chain._of_steps(self.steps, app)
        whole._shares_steps = self.shared
        return whole


Signature._join = staticmethod(joined)
Signature._join_all = staticmethod(chain_of)

"""Chain: tasks that run one after the other, each with the result of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kombu.utils.functional import is_list, maybe_list

from celery._state import current_app
from celery.canvas.chords import _chord, set_parent
from celery.canvas.circles import circles_told
from celery.canvas.groups import group, maybe_unroll_group, own_kwargs_of
from celery.canvas.options import merged, stamped
from celery.canvas.signatures import Signature, as_signature, maybe_signature
from celery.result import allow_join_result
from celery.states import IGNORED, REJECTED
from celery.utils.text import remove_repeating_from_task

__all__ = ("_chain", "chain", "gives_many")

#: States of a step that ended without a value, and without an error that could be raised: nothing follows.
_LEADING_NOWHERE = frozenset((IGNORED, REJECTED))


@Signature.register_type(name="chain")
class _chain(Signature):
    """Tasks that run one after the other; the result is that of the last, each has the one before for its parent."""

    #: Whether other chains hold the same steps; they are copied when somebody looks at them, who may change them.
    _shares_steps = False

    def __init__(self, *tasks: Any, **options: Any) -> None:
        app = options.pop("app", None)
        steps: Any = tasks[0] if len(tasks) == 1 and _is_many(tasks[0]) else tasks
        steps = [
            as_signature(step, app, f"Item {index} of the chain") if not isinstance(step, Signature) else step
            for index, step in enumerate(steps)
        ]
        Signature.__init__(self, "celery.chain", (), {"tasks": steps}, options, app=app)
        self["subtask_type"] = "chain"

    @classmethod
    def _of_steps(cls, steps: list[Any], app: Any = None) -> _chain:
        new = _chain(app=app)
        new["kwargs"]["tasks"] = steps
        return new

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> _chain:
        """Return the chain that a mapping stands for; steps that are mappings become signatures."""
        new = cls._of_steps([maybe_signature(step, app=app, clone=True) for step in d["kwargs"]["tasks"]], app)
        new["args"] = tuple(d.get("args") or ())
        new["kwargs"].update((key, value) for key, value in d["kwargs"].items() if key != "tasks")
        new["options"].update(d.get("options") or {})
        new["immutable"] = d.get("immutable", False)
        return new

    @property
    def tasks(self) -> Any:
        """The steps."""
        if self._shares_steps:
            self["kwargs"]["tasks"] = [step.clone() for step in self["kwargs"]["tasks"]]
            self._shares_steps = False
        return self["kwargs"]["tasks"]

    @tasks.setter
    def tasks(self, steps: Any) -> None:
        self._shares_steps = False
        self["kwargs"]["tasks"] = steps

    def share_steps(self) -> list[Any]:
        """Return the steps for use in another chain, with what is linked to this one linked to them."""
        steps = self["kwargs"]["tasks"]
        links = [maybe_list(self["options"].get(key)) or [] for key in ("link", "link_error")]
        if any(links):
            return self.unchain_tasks()
        self._shares_steps = True
        return list(steps)

    def unchain_tasks(self) -> list[Any]:
        """Return copies of the steps, with the callbacks of the chain on the last and its errbacks on all."""
        steps = [maybe_signature(step, app=self._app, clone=True) for step in self["kwargs"]["tasks"]]
        if not steps:
            return steps
        options = self["options"]
        for callback in maybe_list(options.get("link")) or ():
            steps[-1].link(callback)
        for step in steps:
            for errback in maybe_list(options.get("link_error")) or ():
                step.link_error(errback)
        return steps

    @property
    def app(self) -> Any:
        steps = self["kwargs"]["tasks"]
        app = self._app or (getattr(steps[0], "_app", None) if steps else None)
        return app or current_app._get_current_object()

    # -- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send the chain; with no step, do nothing."""
        return self.apply_async(args, kwargs) if self["kwargs"]["tasks"] else None

    def apply_async(  # type: ignore[override]  # Upstream: no `route_name`
        self, args: Any = None, kwargs: Any = None, **options: Any
    ) -> Any:
        """Send the first step, with the others on board; returns the result of the last, None if there is no step.

        ``args`` and ``options`` are for the first step, ``link`` for the last, ``link_error`` for all.

        Raises:
            NotImplementedError: a step is a chord, and the result store cannot do chords.
        """
        app = self.app
        if app.conf.task_always_eager:
            with allow_join_result():
                return self.apply(args, kwargs, **options)
        return self.run(args, kwargs, app=app, **merged(self["options"], options))

    def run(
        self,
        args: Any = None,
        kwargs: Any = None,
        group_id: str | None = None,
        chord: Any = None,
        task_id: str | None = None,
        link: Any = None,
        link_error: Any = None,
        publisher: Any = None,
        producer: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        app: Any = None,
        group_index: int | None = None,
        **options: Any,
    ) -> Any:
        """Send the first step; ``group_id``, ``group_index`` and ``chord`` say what the last one is a member of."""
        app = app or self.app
        steps, results = self.prepare_steps(
            args, kwargs, self["kwargs"]["tasks"], root_id, parent_id, link_error, app,
            task_id, group_id, chord, group_index=group_index,
        )  # fmt: skip
        if not results:
            return None
        if any(isinstance(step, _chord) for step in steps):
            app.backend.ensure_chords_allowed()  # now: when its turn comes, nobody is there to be told
        if link:
            steps[0].extend_list_option("link", link)
        if root_id:
            options["root_id"] = root_id
        if parent_id:
            options["parent_id"] = parent_id
        if producer or publisher:
            options["producer"] = producer or publisher
        first = steps.pop()
        if app.conf.task_protocol == 1:
            for later, earlier in zip(steps, [*steps[1:], first], strict=False):
                earlier.link(later)
        else:
            options["chain"] = [*(options.get("chain") or ()), *steps]
        first.apply_async(**options)
        return results[0]

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the steps here, each with the result of the one before; returns the result of the last.

        What a step before the last raises is raised; after one that is ignored or rejected, none runs.
        """
        app = self.app
        args, kwargs = self._given(args, kwargs)
        options = merged(self["options"], options)
        link = options.pop("link", None)
        task_id = options.pop("task_id", None)
        steps = self._plan(self["kwargs"]["tasks"], app, clone=True)
        last: Any = None
        for index, step in enumerate(steps):
            if getattr(last, "state", None) in _LEADING_NOWHERE:  # a group has no state
                return last
            is_last = index == len(steps) - 1
            if is_last and link:
                step.extend_list_option("link", link)
            if is_last and task_id and "task_id" not in step["options"]:
                options["task_id"] = task_id
            given = args if last is None else (last.get(disable_sync_subtasks=False),)
            result = step.apply(given, kwargs if last is None else None, **options)
            if last is not None:
                set_parent(result, last)
            last = result
        return last

    def _given(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return the arguments for the first step: those given and those of the chain itself."""
        own_kwargs = own_kwargs_of(self)
        if self["immutable"]:
            return self["args"], own_kwargs
        return (*(args or ()), *self["args"]), {**own_kwargs, **(kwargs or {})}

    # -- planning

    def prepare_steps(
        self,
        args: Any,
        kwargs: Any,
        tasks: Any,
        root_id: str | None = None,
        parent_id: str | None = None,
        link_error: Any = None,
        app: Any = None,
        last_task_id: str | None = None,
        group_id: str | None = None,
        chord_body: Any = None,
        clone: bool = True,
        from_dict: Any = None,
        group_index: int | None = None,
    ) -> tuple[list[Any], list[Any]]:
        """Return ``(steps, results)``, the last step first: all have ids, and all results have parents.

        Chains among ``tasks`` are their steps, a group with a step after it is a chord.
        """
        app = app or self.app
        steps = self._plan(tasks, app, clone)
        if not steps:
            return [], []
        if args or kwargs or self["args"] or len(self["kwargs"]) > 1:
            given, given_kwargs = self._given(args, kwargs)
            steps[0] = steps[0].clone(given, given_kwargs)
        results: list[Any] = []
        for step in steps[:-1]:
            results.append(_frozen_after(results, step, {"root_id": root_id}))
        last = {"root_id": root_id, "group_id": group_id, "chord": chord_body, "group_index": group_index}
        results.append(_frozen_after(results, steps[-1], {"_id": last_task_id, **last}))
        for errback in maybe_list(link_error) or ():
            for step in steps:
                step.link_error(errback)
        return steps[::-1], results[::-1]

    def _plan(self, tasks: Iterable[Any], app: Any, clone: bool) -> list[Any]:
        """Return the steps: chains are theirs, groups of one are that one, a group with a step after it is a chord."""
        steps: list[Any] = []
        with circles_told(self):
            for step in self._flat_steps(tasks, app, clone):
                if steps and gives_many(steps[-1]):
                    steps[-1] = _collected(steps[-1], step, app)
                else:
                    steps.append(step)
        if len(steps) > 1 and isinstance(steps[-1], group) and not steps[-1].tasks:
            steps.pop()  # nothing follows
        return steps

    def _flat_steps(self, tasks: Iterable[Any], app: Any, clone: bool) -> Iterator[Any]:
        for index, task in enumerate(tasks):
            step = as_signature(task, app, f"Item {index} of the chain", clone=clone and not isinstance(task, _chain))
            if isinstance(step, _chain):
                inner = step.unchain_tasks() if clone else step.share_steps()
                yield from self._flat_steps(inner, app, False)
            elif isinstance(step, group):
                only = maybe_unroll_group(step)
                if isinstance(only, _chain):
                    yield from self._flat_steps([only], app, clone)
                else:
                    yield only
            elif clone and isinstance(step, _chord) and _is_plain_chain(step.body):
                # the body travels in every member of the header: only its first step need do so
                first, *rest = self._flat_steps([step.body], app, True)
                step.body = first
                yield step
                yield from rest
            else:
                yield step

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give the steps their ids; returns the result of the last.  Membership is the last one's."""
        if not self.tasks:
            raise ValueError("An empty chain has no result: there is nothing to freeze.")
        steps, results = self.prepare_steps(
            (), {}, self.tasks, root_id, parent_id, None, self.app, _id, group_id, chord,
            clone=False, group_index=group_index,
        )  # fmt: skip
        self.tasks = steps[::-1]
        self["args"], self["kwargs"] = (), {"tasks": self.tasks}  # the first step has the arguments now
        self["options"]["task_id"] = results[0].id
        return results[0]

    _freeze = freeze

    # -- copies and changes

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        """Return a copy; the steps are copied too."""
        return Signature.clone(self, *args, **kwargs)

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Write stamps on all steps; see ``Signature.stamp``."""
        extra = visitor.on_chain_start(self, **headers) if visitor is not None else None
        headers = stamped(headers, extra)
        self.stamp_links(visitor, append_stamps, **headers)
        steps = self.tasks = [as_signature(step, self._app, "A step of the chain") for step in self.tasks]
        with circles_told(self):
            for step in steps:
                step.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chain_end(self, **headers)
        return self

    def __repr__(self) -> str:
        try:
            steps = [repr(maybe_signature(step)) for step in self["kwargs"]["tasks"]]
        except RecursionError:  # a text must not fail: it may be for an error message
            return f"<{type(self).__name__} that contains itself>"
        if not steps:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        first = str(self["kwargs"]["tasks"][0].get("task"))
        return remove_repeating_from_task(first, " | ".join(steps))


class chain(_chain):
    """Tasks joined as ``a | b | c``: ``chain(a, b, c)``, ``chain([a, b, c])`` or ``chain(generator)``.

    A group with a task after it becomes a chord, so that what is returned may be a chord instead of a chain.
    """

    def __new__(cls, *tasks: Any, **kwargs: Any) -> Any:
        if not kwargs and tasks:
            if len(tasks) > 1:
                return Signature._join_all(tasks)
            if _is_many(tasks[0]):
                return Signature._join_all(tasks[0])
        return super().__new__(cls, *tasks, **kwargs)


def gives_many(sig: Any) -> bool:
    """Whether the result of ``sig`` is that of a group, so that what follows must wait for all of it."""
    while not isinstance(sig, group):
        if isinstance(sig, _chord):
            sig = sig.body
        elif isinstance(sig, _chain) and sig["kwargs"]["tasks"]:
            sig = sig["kwargs"]["tasks"][-1]
        else:
            return False
    return True


def _collected(sig: Any, then: Any, app: Any) -> Any:
    """Return ``sig``, which gives many, with its last group made a chord that has ``then`` for its body."""
    if isinstance(sig, group):
        return _chord(sig, body=then, app=app)
    if isinstance(sig, _chord):
        return sig.with_body(_collected(sig.body, then, app))
    *before, last = sig.tasks
    sig.tasks = [*before, _collected(last, then, app)]
    return sig


def _is_plain_chain(sig: Any) -> bool:
    """Whether nothing is lost if the steps of ``sig`` take its place."""
    return isinstance(sig, _chain) and not sig["args"] and sig["options"].keys() <= {"task_id", "link", "link_error"}


def _is_many(item: Any) -> bool:
    return is_list(item, scalars=(dict, str)) or hasattr(item, "__next__")


def _frozen_after(results: list[Any], step: Any, ids: dict[str, Any]) -> Any:
    result = step.freeze(**ids)
    if results:
        set_parent(result, results[-1])
    return result

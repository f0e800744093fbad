"""Steps that start worker and consumer, in the order of what they need, and stop them in reverse.

This is an extension door: users add steps of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import Event
from typing import Any

from .utils.graph import DependencyGraph, GraphFormatter
from .utils.imports import instantiate, qualname
from .utils.log import get_logger

__all__ = ("Blueprint", "Step", "StartStopStep", "ConsumerStep")

#: States
RUN = 0x1
CLOSE = 0x2
TERMINATE = 0x3

logger = get_logger(__name__)


class StepFormatter(GraphFormatter):
    """Draws a blueprint: the last step as the frame of the others, conditional ones with a ring."""

    blueprint_prefix = "⧉"
    conditional_prefix = "∘"
    blueprint_scheme: Mapping[str, Any] = {
        "shape": "parallelogram",
        "color": "slategray4",
        "fillcolor": "slategray3",
    }

    def label(self, step: Any) -> Any:
        return step and f"{self._prefix(step)}{(step.label or step.name.rsplit('.', 1)[-1])}"

    def _prefix(self, step: Any) -> str:
        if step.last:
            return self.blueprint_prefix
        return self.conditional_prefix if step.conditional else ""

    def node(self, obj: Any, **attrs: Any) -> bytes:
        return self.draw_node(obj, self.blueprint_scheme if obj.last else self.node_scheme, attrs)

    def edge(self, a: Any, b: Any, **attrs: Any) -> bytes:
        if a.last:
            attrs.update(arrowhead="none", color="darkseagreen3")
        return self.draw_edge(a, b, self.edge_scheme, attrs)


class Blueprint:
    """A set of steps, and the state they are in together.

    ``steps`` are classes or names like ``package.module:Class``, added to ``default_steps``; what they require is
    added too.  ``on_start``, ``on_close`` and ``on_stopped`` are called without arguments.  The steps' parent
    needs a list ``steps``, which those that start and stop put themselves in.
    """

    GraphFormatter = StepFormatter

    name: str | None = None
    #: ``None`` before it is started, then ``RUN``, ``CLOSE``, ``TERMINATE``.
    state: int | None = None
    #: How many steps were started.
    started = 0
    default_steps: Iterable[Any] = set()
    state_to_name = {
        0: "initializing",
        RUN: "running",
        CLOSE: "closing",
        TERMINATE: "terminating",
    }

    def __init__(
        self,
        steps: Iterable[Any] | None = None,
        name: str | None = None,
        on_start: Callable[[], Any] | None = None,
        on_close: Callable[[], Any] | None = None,
        on_stopped: Callable[[], Any] | None = None,
    ) -> None:
        self.name = name or self.name or qualname(type(self))
        self._declared = [*dict.fromkeys([*self.default_steps, *(steps or ())])]
        self.types = set(self._declared)
        self.on_start = on_start
        self.on_close = on_close
        self.on_stopped = on_stopped
        self.shutdown_complete = Event()
        self.steps: dict[str, Step] = {}
        self.order: list[Step] = []
        self.graph: DependencyGraph = DependencyGraph(formatter=self.GraphFormatter(root=None))

    # -- life

    def start(self, parent: Any) -> None:
        """Start the steps of ``parent``, in order."""
        self.state = RUN
        if self.on_start:
            self.on_start()
        for number, step in enumerate([step for step in parent.steps if step is not None], 1):
            self._debug("Starting %s", step.alias)
            self.started = number
            step.start(parent)
            logger.debug("^-- substep ok")

    def human_state(self) -> str:
        """Return the state as a word."""
        return self.state_to_name[self.state or 0]

    def info(self, parent: Any) -> dict[str, Any]:
        """Return what the steps tell about themselves."""
        info: dict[str, Any] = {}
        for step in parent.steps:
            info.update(step.info(parent) or {})
        return info

    def close(self, parent: Any) -> None:
        """Tell the steps that they will be stopped."""
        if self.on_close:
            self.on_close()
        self.send_all(parent, "close", "closing", reverse=False)

    def restart(
        self, parent: Any, method: str = "stop", description: str = "restarting", propagate: bool = False
    ) -> None:
        """Stop the steps, so that they can be started again."""
        self.send_all(parent, method, description, propagate=propagate)

    def send_all(
        self,
        parent: Any,
        method: str,
        description: str | None = None,
        reverse: bool = True,
        propagate: bool = True,
        args: Iterable[Any] = (),
    ) -> None:
        """Call ``step.method(parent, *args)`` of all steps that have it, the last first.

        Errors are raised, or with ``propagate=False`` logged.
        """
        description = description or method.replace("_", " ")
        for step in list(reversed(parent.steps) if reverse else parent.steps):
            function = getattr(step, method, None) if step is not None else None
            if function is None:
                continue
            self._debug("%s %s...", description.capitalize(), step.alias)
            try:
                function(parent, *args)
            except Exception as error:  # the other steps must be stopped all the same
                if propagate:
                    raise
                logger.exception("Error on %s %s: %r", description, step.alias, error)

    def stop(self, parent: Any, close: bool = True, terminate: bool = False) -> None:
        """Stop the steps, the last first; those that can do it at once with ``terminate``."""
        what = "terminating" if terminate else "stopping"
        if self.state in (CLOSE, TERMINATE):
            return
        if self.state != RUN or self.started != len(parent.steps):
            # nothing runs, or starting failed halfway and the process will end
            self.state = TERMINATE
            self.shutdown_complete.set()
            return
        self.close(parent)
        self.state = CLOSE
        self.restart(parent, "terminate" if terminate else "stop", description=what, propagate=False)
        if self.on_stopped:
            self.on_stopped()
        self.state = TERMINATE
        self.shutdown_complete.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it is stopped."""
        try:
            self.shutdown_complete.wait(timeout=timeout)
        except IGNORE_ERRORS as error:
            logger.debug("Ignored while waiting for the end of %s: %r", self.alias, error)

    # -- building

    def apply(self, parent: Any, **kwargs: Any) -> Blueprint:
        """Make the steps, ``step(parent, **kwargs)``, in the order of what they require; return self."""
        self._debug("Preparing bootsteps.")
        order = self.order = []
        steps = self.steps = self.claim_steps()
        self._debug("Building graph...")
        for step_class in self._finalize_steps(steps):
            step = step_class(parent, **kwargs)
            steps[step.name] = step
            order.append(step)
        self._debug("New boot order: {%s}", ", ".join(step.alias for step in self.order))
        for step in order:
            step.include(parent)
        return self

    def connect_with(self, other: Blueprint) -> None:
        """Add the graph of another blueprint, whose first step follows our last."""
        self.graph.adjacent.update(other.graph.adjacent)
        self.graph.add_edge(type(other.order[0]), type(self.order[-1]))

    def claim_steps(self) -> dict[str, Any]:
        """Return the classes of the steps we were given, by name."""
        added = [step for step in self.types if step not in self._declared]
        return dict(self.load_step(step) for step in [*self._declared, *added])

    def load_step(self, step: Any) -> tuple[str, Any]:
        """Return name and class of a step given as class or name."""
        step = _resolved(step)
        return step.name, step

    def __getitem__(self, name: str) -> Any:
        return self.steps[name]

    def _finalize_steps(self, steps: dict[str, Any]) -> list[Any]:
        """Add to ``steps`` what they require; return all in the order to start them."""
        required = self._required_by(steps)
        last = next((step for step in steps.values() if step.last), None)
        if last is not None:
            required[last] = [*required[last], *(s for s in required if s is not last and s not in required[last])]
        self.graph = DependencyGraph(required.items(), formatter=self.GraphFormatter(root=last))
        return self.graph.topsort()

    def _required_by(self, steps: dict[str, Any]) -> dict[Any, list[Any]]:
        required: dict[Any, list[Any]] = {}
        waiting = list(steps.values())
        while waiting:
            step = waiting.pop(0)
            if step in required:
                continue
            steps.setdefault(step.name, step)
            required[step] = [_resolved(name) for name in step.requires]
            waiting.extend(required[step])
        return required

    @property
    def alias(self) -> str:
        return _label(self)

    def _debug(self, message: str, *args: Any) -> None:
        logger.debug(f"| {self.alias}: {message}", *args)


def _resolved(step: Any) -> Any:
    if not isinstance(step, str):
        return step
    from kombu.utils.imports import symbol_by_name

    return symbol_by_name(step)


def _label(thing: Any) -> str:
    return str(thing.name).rsplit(".", 1)[-1]


def _green_errors() -> tuple[type[BaseException], ...]:
    """Return the error that ends greenlets, where there are any."""
    try:
        from greenlet import GreenletExit
    except ImportError:
        return ()
    return (GreenletExit,)


class StepType(type):
    """Makes step classes: each has a name, that of its module and class unless it says another."""

    name: Any = None
    requires: Any = None

    def __new__(mcs, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> StepType:
        module = attrs.get("__module__")
        qualified = f"{module}.{attrs.get('__qualname__') or name}" if module else name
        return super().__new__(mcs, name, bases, {**attrs, "name": attrs.get("name") or qualified})

    def __str__(cls) -> str:
        return str(cls.name)

    def __repr__(cls) -> str:
        return f"step:{cls.name}{{{cls.requires!r}}}"


class Step(metaclass=StepType):
    """Prepares a part of worker or consumer, once.

    ``__init__`` is called when the blueprint is applied, ``create`` if the step is to be included.
    """

    #: Unique; that of module and class unless given.
    name: str = None  # type: ignore[assignment]  # the metaclass sets it
    #: What ``alias`` shows.
    label: str | None = None
    #: It may be left out (``include_if``); told when the blueprint is drawn.
    conditional = False
    #: Steps, as classes or names, that come before this one.
    requires: Iterable[Any] = ()
    #: Requires all others.
    last = False
    #: What ``include_if`` returns unless overridden.
    enabled = True

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        pass

    def include_if(self, parent: Any) -> Any:
        """Say whether this step is wanted."""
        return self.enabled

    def instantiate(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a class given by name."""
        return instantiate(name, *args, **kwargs)

    def _should_include(self, parent: Any) -> tuple[bool, Any]:
        return (True, self.create(parent)) if self.include_if(parent) else (False, None)

    def include(self, parent: Any) -> Any:
        """Do what the step is for, if it is wanted; say whether."""
        return self._should_include(parent)[0]

    def create(self, parent: Any) -> Any:
        """Do what the step is for; overridden."""

    def __repr__(self) -> str:
        return f"<step: {self.alias}>"

    @property
    def alias(self) -> str:
        return self.label or _label(self)

    def info(self, obj: Any) -> Any:
        """Return a dict for the answer to ``inspect stats``; overridden."""


class StartStopStep(Step):
    """A step that runs something: ``create`` returns an object with ``start`` and ``stop``, or these are overridden."""

    #: What ``create`` returned.
    obj: Any = None

    def start(self, parent: Any) -> Any:
        if self.obj:
            return self.obj.start()
        return None

    def stop(self, parent: Any) -> Any:
        if self.obj:
            return self.obj.stop()
        return None

    def close(self, parent: Any) -> Any:
        """Prepare for being stopped; overridden."""

    def terminate(self, parent: Any) -> Any:
        """Stop at once, if the object can, else stop."""
        if self.obj:
            return getattr(self.obj, "terminate", self.obj.stop)()
        return None

    def include(self, parent: Any) -> Any:
        wanted, made = self._should_include(parent)
        if wanted:
            self.obj = made
            parent.steps.append(self)
        return wanted


class ConsumerStep(StartStopStep):
    """A step of the consumer that consumes messages of its own: ``get_consumers`` returns kombu consumers."""

    requires: Iterable[Any] = ("celery.worker.consumer:Connection",)
    consumers: Any = None

    def get_consumers(self, channel: Any) -> Any:
        """Return consumers on ``channel``."""
        raise NotImplementedError("missing get_consumers")

    def start(self, c: Any) -> None:
        channel = c.connection.channel()
        self.consumers = self.get_consumers(channel)
        for consumer in self.consumers or ():
            consumer.consume()

    def stop(self, c: Any) -> None:
        self._close(c, True)

    def shutdown(self, c: Any) -> None:
        """Close without telling the broker; the connection goes down anyway."""
        self._close(c, False)

    def _close(self, c: Any, cancel_consumers: bool = True) -> None:
        from kombu.common import ignore_errors

        channels = {}
        for consumer in self.consumers or ():
            if cancel_consumers:
                ignore_errors(c.connection, consumer.cancel)
            if consumer.channel:
                channels[id(consumer.channel)] = consumer.channel
        for channel in channels.values():
            ignore_errors(c.connection, channel.close)


IGNORE_ERRORS = _green_errors()

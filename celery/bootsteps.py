"""Extension door: steps that users add to the worker, and to its consumer.

A blueprint is made of steps that name the steps they require.  They start in an order that fits, and stop in the
reverse one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Event
from typing import Any, ClassVar

from kombu.common import ignore_errors
from kombu.utils.encoding import bytes_to_str
from kombu.utils.imports import symbol_by_name

from celery.utils.graph import DependencyGraph, GraphFormatter
from celery.utils.imports import instantiate, qualname
from celery.utils.log import get_logger

__all__ = ("Blueprint", "ConsumerStep", "StartStopStep", "Step")

logger = get_logger(__name__)

#: States of a blueprint; before the first of them it is 0 or ``None``.
RUN, CLOSE, TERMINATE = 1, 2, 3


class StepFormatter(GraphFormatter):
    """Draws a blueprint for ``celery graph bootsteps``."""

    blueprint_prefix = "\u29c9"
    conditional_prefix = "\u2218"
    blueprint_scheme: ClassVar[dict[str, str]] = {
        "shape": "parallelogram",
        "color": "slategray4",
        "fillcolor": "slategray3",
    }

    def label(self, step: Any) -> str:
        """Return the step's label, marked if it is conditional."""
        prefix = self.conditional_prefix if getattr(step, "conditional", False) else ""
        return f"{prefix}{bytes_to_str(getattr(step, 'label', None) or _label(step))}"

    def node(self, obj: Any, **attrs: Any) -> bytes:
        scheme = self.blueprint_scheme if isinstance(obj, Blueprint) else self.node_scheme
        return self.draw_node(obj, scheme, attrs)

    def edge(self, a: Any, b: Any, **attrs: Any) -> bytes:
        if isinstance(a, Blueprint):
            attrs.update(arrowhead="none", color="darkseagreen3")
        return self.draw_edge(a, b, self.edge_scheme, attrs)


def _label(step: Any) -> str:
    return str(step.name).rsplit(".", 1)[-1]


class StepType(type):
    """Gives each step class its name, and makes steps named by path out of ``requires``."""

    name: Any = None
    requires: Any = None

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> StepType:
        module = attrs.get("__module__")
        attrs.setdefault("name", f"{module}.{name}" if module else name)
        return super().__new__(cls, name, bases, {**attrs, "__qualname__": name})

    def __str__(cls) -> str:
        return bytes_to_str(cls.name)

    def __repr__(cls) -> str:
        return f"step:{cls.name}{{{cls.requires!r}}}"


class Step(metaclass=StepType):
    """A part of a blueprint.

    ``requires`` names the steps to start before, as classes or paths; ``last`` puts it behind all others;
    ``conditional`` says that `include_if` may leave it out.  `create` makes what the step stands for.
    """

    name: Any = None
    label: Any = None
    conditional = False
    requires: Any = ()
    last = False
    enabled = True

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        pass

    def include_if(self, parent: Any) -> Any:
        """Return whether this step takes part."""
        return self.enabled

    def instantiate(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Make an instance of the class with that path."""
        return instantiate(name, *args, **kwargs)

    def _should_include(self, parent: Any) -> tuple[bool, Any]:
        if self.include_if(parent):
            return True, self.create(parent)
        return False, None

    def include(self, parent: Any) -> Any:
        """Create the step's object if it takes part; returns whether it does."""
        return self._should_include(parent)[0]

    def create(self, parent: Any) -> Any:
        """Make what this step stands for, and hang it on ``parent``."""

    def info(self, obj: Any) -> Any:
        """Return figures for ``inspect stats``, by name."""

    @property
    def alias(self) -> str:
        return str(self.label or _label(self))

    def __repr__(self) -> str:
        return f"<step: {self.alias}>"


class StartStopStep(Step):
    """A step whose object is started and stopped with the blueprint."""

    #: What `create` returned.
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
        """Begin to stop: nothing new is taken."""

    def terminate(self, parent: Any) -> Any:
        """Stop at once, if the object can; else as `stop` does."""
        if self.obj:
            return getattr(self.obj, "terminate", self.obj.stop)()
        return None

    def include(self, parent: Any) -> bool:
        takes_part, self.obj = self._should_include(parent)
        if takes_part:
            parent.steps.append(self)
        return takes_part


class ConsumerStep(StartStopStep):
    """A step of the consumer that consumes messages of its own; `get_consumers` gives the kombu consumers."""

    requires = ("celery.worker.consumer:Connection",)
    consumers: Any = None

    def get_consumers(self, channel: Any) -> Any:
        raise NotImplementedError("missing get_consumers")

    def start(self, c: Any) -> None:
        channel = c.connection.channel()
        self.consumers = self.get_consumers(channel)
        for consumer in self.consumers or ():
            consumer.consume()

    def stop(self, c: Any) -> None:
        self._close(c, cancels=True)

    def shutdown(self, c: Any) -> None:
        self._close(c, cancels=False)

    def _close(self, c: Any, cancels: bool) -> None:
        channels = set()
        for consumer in self.consumers or ():
            if cancels:
                ignore_errors(c.connection, consumer.cancel)
            if consumer.channel:
                channels.add(consumer.channel)
        for channel in channels:
            ignore_errors(c.connection, channel.close)


class Blueprint:
    """Steps, and the order in which they start.

    ``steps`` (classes or paths) are added to ``default_steps``; the callbacks hear when the parts are about to
    start, to close, and have stopped.
    """

    GraphFormatter = StepFormatter

    name: Any = None
    state: int | None = None
    started = 0
    default_steps: Any = set()
    state_to_name: ClassVar[dict[int, str]] = {
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
        self.types = set(steps or ()) | set(self.default_steps)
        self.on_start = on_start
        self.on_close = on_close
        self.on_stopped = on_stopped
        self.shutdown_complete = Event()
        self.steps: dict[str, Any] = {}
        self.order: list[Any] = []
        self.graph: Any = None

    # -- what it is made of

    def claim_steps(self) -> dict[str, Any]:
        """Return the steps by name."""
        return dict(self.load_step(step) for step in self.types)

    def load_step(self, step: Any) -> tuple[str, Any]:
        """Return name and class of a step given as class or path."""
        step = symbol_by_name(step)
        return step.name, step

    def apply(self, parent: Any, **kwargs: Any) -> Blueprint:
        """Make the steps for ``parent``, in order; ``kwargs`` go to each."""
        self._debug("Preparing bootsteps.")
        order = self.order = []
        steps = self.steps = self.claim_steps()
        self._debug("Building graph...")
        for step_class in self._in_order(steps):
            step = step_class(parent, **kwargs)
            steps[step_class.name] = step
            order.append(step)
        self._debug("New boot order: {%s}", ", ".join(step.alias for step in order))
        for step in order:
            step.include(parent)
        return self

    def _in_order(self, steps: dict[str, Any]) -> list[Any]:
        last = next((step for step in steps.values() if step.last), None)
        graph = self.graph = DependencyGraph(
            ((step, [symbol_by_name(other) for other in step.requires]) for step in steps.values()),
            formatter=self.GraphFormatter(root=last),
        )
        if last is not None:
            for step in list(graph):
                if step is not last:
                    graph.add_edge(last, step)
        missing = [step for step in graph if step.name not in steps]
        for step in missing:  # required, and by nobody named
            steps[step.name] = step
        return list(graph.topsort())

    def connect_with(self, other: Blueprint) -> None:
        """Draw ``other`` as a part of this blueprint."""
        self.graph.adjacent.update(other.graph.adjacent)
        self.graph.add_edge(type(other.order[0]), type(self.order[-1]))

    # -- its life

    def start(self, parent: Any) -> None:
        """Start one step after another."""
        self.state = RUN
        if self.on_start:
            self.on_start()
        for number, step in enumerate(filter(None, parent.steps), 1):
            self._debug("Starting %s", step.alias)
            self.started = number
            step.start(parent)
            logger.debug("^-- substep ok")

    def human_state(self) -> str:
        return self.state_to_name[self.state or 0]

    def info(self, parent: Any) -> dict[str, Any]:
        """Return what the steps tell of themselves."""
        told: dict[str, Any] = {}
        for step in parent.steps:
            told.update(step.info(parent) or {})
        return told

    def close(self, parent: Any) -> None:
        if self.on_close:
            self.on_close()
        self.send_all(parent, "close", "closing", reverse=False)

    def restart(
        self, parent: Any, method: str = "stop", description: str = "restarting", propagate: bool = False
    ) -> None:
        """Stop the steps so that `start` can start them again."""
        self.send_all(parent, method, description, propagate=propagate)

    def send_all(
        self,
        parent: Any,
        method: str,
        description: str | None = None,
        reverse: bool = True,
        propagate: bool = True,
        args: tuple[Any, ...] = (),
    ) -> None:
        """Call ``method`` of each step that has it; ``propagate`` false logs what a step raises, and goes on."""
        description = description or method.replace("_", " ")
        steps = list(reversed(parent.steps)) if reverse else list(parent.steps)
        for step in filter(None, steps):
            call = getattr(step, method, None)
            if call is None:
                continue
            self._debug("%s %s...", description.capitalize(), step.alias)
            try:
                call(parent, *args)
            except Exception as exc:
                if propagate:
                    raise
                logger.exception("Error on %s %s: %r", description, step.alias, exc)

    def stop(self, parent: Any, close: bool = True, terminate: bool = False) -> None:
        """Stop in the reverse order; ``terminate`` calls that in place of ``stop``."""
        if self.state in (CLOSE, TERMINATE) and close:
            return
        if self.state != RUN or self.started != len(parent.steps):
            # It did not come up as a whole.
            self.state = TERMINATE
            self.shutdown_complete.set()
            return
        what = "terminating" if terminate else "stopping"
        self.close(parent)
        self.state = CLOSE
        self.restart(parent, "terminate" if terminate else "stop", description=what, propagate=False)
        if self.on_stopped:
            self.on_stopped()
        self.state = TERMINATE
        self.shutdown_complete.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has stopped."""
        try:
            self.shutdown_complete.wait(timeout=timeout)
        except (KeyboardInterrupt, SystemExit):
            pass

    @property
    def alias(self) -> str:
        return _label(self)

    def __getitem__(self, name: str) -> Any:
        return self.steps[name]

    def _debug(self, message: str, *args: Any) -> None:
        logger.debug(f"| {self.alias}: {message}", *args)

import io
import logging
from types import SimpleNamespace

import pytest

from celery import bootsteps
from celery.bootsteps import CLOSE, RUN, TERMINATE, Blueprint, ConsumerStep, StartStopStep, Step
from celery.utils.graph import CycleError


class Parent:
    """What steps belong to: a worker or a consumer."""

    def __init__(self):
        self.steps = []
        self.log = []


class Logged(StartStopStep):
    """Writes down what happens to it."""

    def start(self, parent):
        parent.log.append(f"start {self.alias}")

    def stop(self, parent):
        parent.log.append(f"stop {self.alias}")

    def close(self, parent):
        parent.log.append(f"close {self.alias}")

    def terminate(self, parent):
        parent.log.append(f"terminate {self.alias}")

    def info(self, parent):
        return {self.alias: True}


class Engine(Logged):
    def create(self, parent):
        parent.log.append("create Engine")


class Wheels(Logged):
    requires = (Engine,)


class Driver(Logged):
    requires = (f"{__name__}:Wheels", Engine)
    label = "Chauffeur"


class Whole(Logged):
    last = True


class Extra(Logged):
    conditional = True

    def include_if(self, parent):
        return False


@pytest.fixture
def parent():
    return Parent()


def test_steps_start_after_what_they_require_and_stop_before(parent):
    heard = []
    blueprint = Blueprint(
        [Whole, Driver],
        name="Car",
        on_start=lambda: heard.append("start"),
        on_close=lambda: heard.append("close"),
        on_stopped=lambda: heard.append("stopped"),
    )
    blueprint.apply(parent).start(parent)
    assert (blueprint.state, blueprint.human_state(), blueprint.started) == (RUN, "running", 4)
    blueprint.stop(parent)

    assert parent.log == [
        "create Engine",
        *("start " + name for name in ("Engine", "Wheels", "Chauffeur", "Whole")),
        *("close " + name for name in ("Engine", "Wheels", "Chauffeur", "Whole")),
        *("stop " + name for name in ("Whole", "Chauffeur", "Wheels", "Engine")),
    ]
    assert heard == ["start", "close", "stopped"]
    assert (blueprint.state, blueprint.human_state()) == (TERMINATE, "terminating")
    assert blueprint.shutdown_complete.is_set()
    blueprint.join(timeout=1)
    blueprint.stop(parent)
    assert heard == ["start", "close", "stopped"]


def test_steps_are_terminated_when_asked(parent):
    blueprint = Blueprint([Engine]).apply(parent)
    blueprint.start(parent)
    blueprint.stop(parent, terminate=True)
    assert parent.log[-1] == "terminate Engine"


def test_the_order_is_that_of_declaration_where_nothing_is_required():
    class One(Logged):
        pass

    class Two(Logged):
        pass

    class Three(Logged):
        pass

    class Given(Blueprint):
        default_steps = [Three, One]

    for _ in range(3):
        assert [step.alias for step in Given([Two]).apply(Parent()).order] == ["Three", "One", "Two"]


def test_steps_get_the_arguments_of_the_parent(parent):
    class Greedy(Step):
        def __init__(self, parent, volume=0, **kwargs):
            parent.volume = volume

    blueprint = Blueprint([Greedy]).apply(parent, volume=3, other=1)
    assert parent.volume == 3
    assert parent.steps == []
    assert blueprint[f"{__name__}.test_steps_get_the_arguments_of_the_parent.<locals>.Greedy"] is blueprint.order[0]


def test_a_step_may_be_left_out(parent):
    blueprint = Blueprint([Extra, Engine]).apply(parent)
    assert [step.alias for step in parent.steps] == ["Engine"]
    assert len(blueprint.order) == 2
    assert blueprint.info(parent) == {"Engine": True}


def test_a_disabled_step_is_left_out(parent):
    class Off(Logged):
        enabled = False

    Blueprint([Off]).apply(parent)
    assert parent.steps == []


def test_a_circle_of_steps_is_told(parent):
    class One(Step):
        pass

    class Other(Step):
        requires = (One,)

    One.requires = (Other,)
    with pytest.raises(CycleError, match=r"One → .*Other → .*One"):
        Blueprint([One]).apply(parent)


def test_what_create_returns_is_started_and_stopped(parent):
    log = parent.log

    class Thing:
        def start(self):
            log.append("start")

        def stop(self):
            log.append("stop")

    class Holder(StartStopStep):
        def create(self, parent):
            return Thing()

    class Empty(StartStopStep):
        pass

    blueprint = Blueprint([Holder, Empty]).apply(parent)
    blueprint.start(parent)
    blueprint.restart(parent)
    blueprint.start(parent)
    blueprint.stop(parent, terminate=True)
    assert log == ["start", "stop", "start", "stop"]


def test_an_error_while_stopping_is_logged_and_the_others_stop(parent, caplog):
    class Failing(Logged):
        def stop(self, parent):
            raise ValueError("stuck")

    blueprint = Blueprint([Engine, Failing]).apply(parent)
    blueprint.start(parent)
    with caplog.at_level(logging.ERROR):
        blueprint.stop(parent)
    assert "Error on stopping Failing: ValueError('stuck')" in caplog.text
    assert parent.log[-1] == "stop Engine"
    with pytest.raises(ValueError, match="stuck"):
        blueprint.send_all(parent, "stop")


def test_a_blueprint_that_came_up_half_is_not_stopped_step_by_step(parent):
    class Failing(Logged):
        def start(self, parent):
            raise ValueError("no fuel")

    blueprint = Blueprint([Failing, Engine]).apply(parent)
    with pytest.raises(ValueError, match="no fuel"):
        blueprint.start(parent)
    assert blueprint.started == 1
    blueprint.stop(parent)
    assert blueprint.state == TERMINATE
    assert blueprint.shutdown_complete.is_set()
    assert "stop Engine" not in parent.log


def test_all_steps_are_told_with_arguments(parent):
    class Listener(Logged):
        def hear(self, parent, word):
            parent.log.append(f"{self.alias} heard {word}")

    Blueprint([Listener, Engine]).apply(parent).send_all(parent, "hear", args=("hello",))
    assert "Listener heard hello" in parent.log


def test_the_log_tells_the_boot_order(parent, caplog):
    with caplog.at_level(logging.DEBUG, logger="celery.bootsteps"):
        blueprint = Blueprint([Driver], name="pkg.Car").apply(parent)
        blueprint.start(parent)
    assert [record.getMessage() for record in caplog.records] == [
        "| Car: Preparing bootsteps.",
        "| Car: Building graph...",
        "| Car: New boot order: {Engine, Wheels, Chauffeur}",
        "| Car: Starting Engine",
        "^-- substep ok",
        "| Car: Starting Wheels",
        "^-- substep ok",
        "| Car: Starting Chauffeur",
        "^-- substep ok",
    ]


def test_steps_have_names_and_aliases(parent):
    assert Engine.name == str(Engine) == f"{__name__}.Engine"
    assert repr(Wheels) == f"step:{__name__}.Wheels{{{(Engine,)!r}}}"
    assert (Driver(parent).alias, repr(Engine(parent))) == ("Chauffeur", "<step: Engine>")
    assert (Step.name, Blueprint(name="a.B").alias) == ("celery.bootsteps.Step", "B")
    assert Blueprint([Engine]).load_step(f"{__name__}:Engine") == (Engine.name, Engine)
    assert Step(parent).instantiate("collections:Counter", "aa") == {"a": 2}
    assert Blueprint.state_to_name[CLOSE] == "closing"


def test_steps_added_to_types_later_count(parent):
    blueprint = Blueprint([Engine])
    blueprint.types.add(Wheels)
    assert set(blueprint.claim_steps()) == {Engine.name, Wheels.name}


def test_a_blueprint_is_drawn_with_its_frame(parent):
    blueprint = Blueprint([Whole, Extra, Wheels]).apply(parent)
    out = io.StringIO()
    blueprint.graph.to_dot(out)
    assert '"⧉Whole" [shape="parallelogram"' in out.getvalue()
    assert '"⧉Whole" -> "∘Extra"' in out.getvalue()
    assert '"Wheels" -> "Engine"' in out.getvalue()


def test_blueprints_are_connected_for_drawing(parent):
    car, trailer = Blueprint([Wheels]).apply(parent), Blueprint([Driver]).apply(Parent())
    car.connect_with(trailer)
    assert Driver in car.graph
    assert Wheels in car.graph[Engine]


class Channel:
    def __init__(self):
        self.is_closed = False

    def close(self):
        self.is_closed = True


class Consumer:
    def __init__(self, channel):
        self.channel = channel
        self.log = []

    def consume(self):
        self.log.append("consume")

    def cancel(self):
        self.log.append("cancel")


@pytest.mark.parametrize(("how", "log"), [("stop", ["consume", "cancel"]), ("shutdown", ["consume"])])
def test_a_step_consumes_messages_of_its_own(how, log):
    channel = Channel()
    connection = SimpleNamespace(channel=lambda: channel, connection_errors=(), channel_errors=())
    c = SimpleNamespace(connection=connection)

    class Mine(ConsumerStep):
        def get_consumers(self, channel):
            return [Consumer(channel), Consumer(channel)]

    step = Mine(c)
    step.start(c)
    getattr(step, how)(c)
    assert [consumer.log for consumer in step.consumers] == [log, log]
    assert channel.is_closed
    assert "celery.worker.consumer:Connection" in ConsumerStep.requires


def test_consumers_are_what_subclasses_bring():
    with pytest.raises(NotImplementedError, match="get_consumers"):
        ConsumerStep(None).get_consumers(None)
    assert bootsteps.ConsumerStep.name == "celery.bootsteps.ConsumerStep"

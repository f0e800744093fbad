import gc
import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.local import PromiseProxy
from celery.utils.dispatch import Signal


@pytest.fixture
def signal():
    return Signal(providing_args={"x"}, name="tested")


class Receiver:
    def __init__(self):
        self.calls = []

    def receive(self, sender=None, **kwargs):
        self.calls.append((sender, kwargs))
        return len(self.calls)


def test_receivers_get_signal_sender_and_arguments(signal):
    receiver = Receiver()
    signal.connect(receiver.receive)

    assert signal.send("me", x=1) == [(receiver.receive, 1)]
    assert receiver.calls == [("me", {"signal": signal, "x": 1})]


def test_nobody_listens_at_first(signal):
    assert not signal.receivers
    assert signal.send("me", x=1) == []
    assert not signal.has_listeners()


def test_connect_is_a_decorator_with_and_without_arguments(signal):
    calls = []

    @signal.connect
    def one(**kwargs):
        calls.append("one")

    @signal.connect(sender="task")
    def two(**kwargs):
        calls.append("two")

    signal.send("task")
    signal.send("other")
    assert calls == ["one", "two", "one"]
    assert signal.has_listeners("task")


def test_a_sender_is_matched_by_identity_or_name(signal):
    sender, receiver = object(), Receiver()
    signal.connect(receiver.receive, sender=sender)
    signal.send(object())
    signal.send(None)
    signal.send(sender)
    assert [who for who, _ in receiver.calls] == [sender]
    names = Receiver()
    signal.connect(names.receive, sender="proj." + "add")
    signal.send("".join(["proj", ".add"]))
    assert len(names.calls) == 1


def test_a_weak_receiver_is_forgotten_with_its_owner(signal):
    receiver = Receiver()
    signal.connect(receiver.receive)
    signal.connect(lambda **kwargs: None)
    assert len(signal.receivers) == 1
    del receiver
    gc.collect()
    assert not signal.receivers


def test_a_strong_receiver_stays(signal):
    calls = []
    signal.connect(lambda **kwargs: calls.append(1), weak=False)
    gc.collect()
    signal.send(None)
    assert calls == [1]


def test_the_same_receiver_is_connected_once(signal):
    receiver = Receiver()
    signal.connect(receiver.receive)
    signal.connect(receiver.receive)
    signal.connect(Receiver().receive, weak=False, dispatch_uid="one")
    signal.connect(Receiver().receive, weak=False, dispatch_uid="one")
    assert len(signal.receivers) == 2


def test_receivers_are_disconnected(signal):
    receiver = Receiver()
    signal.connect(receiver.receive, sender="a")
    signal.connect(receiver.receive, dispatch_uid="uid")
    assert not signal.disconnect(receiver.receive)
    assert signal.disconnect(receiver.receive, sender="a")
    assert signal.disconnect(dispatch_uid="uid")
    assert signal.send("a") == []
    with pytest.warns(DeprecationWarning, match="weak"):
        signal.disconnect(receiver.receive, weak=True)


def test_a_receiver_that_raises_stops_nobody(signal, caplog):
    error = ValueError("boom")

    @signal.connect
    def failing(**kwargs):
        raise error

    receiver = Receiver()
    signal.connect(receiver.receive)
    with caplog.at_level(logging.ERROR):
        assert signal.send_robust("me") == [(failing, error), (receiver.receive, 1)]
    assert "boom" in caplog.text


def test_a_receiver_must_take_keywords(signal):
    with pytest.raises(ValueError, match=r"\*\*kwargs"):
        signal.connect(lambda sender: None)
    with pytest.raises(TypeError, match="callable"):
        signal.connect(5)
    with pytest.raises(TypeError, match="unexpected"):
        signal.connect(print, sendr="x")
    with pytest.raises(TypeError, match="by name"):
        signal.connect(print, "sender")


def test_a_receiver_that_retries_is_called_until_it_succeeds(signal, monkeypatch):
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda seconds: None)
    attempts = []

    @signal.connect(retry=True)
    def stubborn(**kwargs):
        attempts.append(kwargs["x"])
        if len(attempts) < 3:
            raise ValueError("not yet")
        return "done"

    assert [answer for _, answer in signal.send("me", x=1)] == ["done"]
    assert attempts == [1, 1, 1]
    assert signal.disconnect(stubborn)


def test_a_retrying_receiver_is_held_weakly_too(signal):
    receiver = Receiver()
    signal.connect(receiver.receive, retry=True)
    assert signal.send("me")
    del receiver
    gc.collect()
    assert not signal.receivers


def test_a_sender_that_is_a_promise_is_waited_for(signal):
    class Task:
        pass

    task, receiver = Task(), Receiver()
    promise = PromiseProxy(lambda: task)
    signal.connect(receiver.receive, sender=promise)
    assert not signal.receivers
    promise.__maybe_evaluate__()
    signal.send(task)
    assert [sender for sender, _ in receiver.calls] == [task]
    assert signal.disconnect(receiver.receive, sender=promise)


def test_caching_gives_the_same_receivers():
    class Sender:
        pass

    cached, receiver, sender = Signal(use_caching=True), Receiver(), Sender()
    cached.connect(receiver.receive, sender=sender)
    for _ in range(2):
        assert len(cached.send(sender)) == 1
        assert cached.send(Sender()) == []
        assert cached.send("not weakly referable") == []
    cached.disconnect(receiver.receive, sender=sender)
    assert cached.send(sender) == []
    cached.connect(receiver.receive)
    assert cached.send(sender)
    del receiver
    gc.collect()
    assert cached.send(sender) == []


def test_a_signal_travels_without_its_receivers(signal):
    signal.connect(Receiver().receive, weak=False)
    copy = pickle.loads(pickle.dumps(signal))
    assert (copy.name, copy.providing_args, copy.receivers) == ("tested", {"x"}, [])
    assert repr(signal) == "<Signal: tested providing_args={'x'}>"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from([None, "a", "b"])), max_size=20))
def test_connected_are_those_that_were_not_disconnected(steps):
    signal, connected = Signal(), set()
    receivers = [Receiver() for _ in range(4)]
    for connects, number, sender in steps:
        if connects:
            signal.connect(receivers[number].receive, sender=sender)
            connected.add((number, sender))
        else:
            assert signal.disconnect(receivers[number].receive, sender=sender) == ((number, sender) in connected)
            connected.discard((number, sender))
    assert len(signal.send("a")) == len([1 for _, sender in connected if sender in (None, "a")])

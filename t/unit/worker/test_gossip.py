from __future__ import annotations

from types import SimpleNamespace

import pytest

from celery.worker.consumer.gossip import Gossip


class Dispatcher:
    def __init__(self):
        self.sent = []

    def send(self, type, **fields):
        self.sent.append((type, fields))


@pytest.fixture
def gossip(app):
    app.conf.broker_url = "redis://nowhere"  # memory is not among the transports that gossip works on
    c = SimpleNamespace(app=app, hostname="w1@h", pid=11, hub=True, timer=None, steps=[])
    gossip = Gossip(c)
    gossip.dispatcher = Dispatcher()
    return gossip


def bid(gossip, hostname, clock, pid=11, topic="note", action="do"):
    gossip.on_elect(
        {"id": "e1", "clock": clock, "hostname": hostname, "pid": pid, "topic": topic, "action": action, "cver": 1}
    )


def acknowledge(gossip, hostname):
    gossip.on_elect_ack({"id": "e1", "hostname": hostname})


def alive(gossip, *names):
    gossip.state.alive_workers = lambda: [SimpleNamespace(hostname=name) for name in names]


def test_a_bid_is_acknowledged(gossip):
    bid(gossip, "w2@h", 5)

    assert gossip.dispatcher.sent == [("worker-elect-ack", {"id": "e1"})]


def test_alone_the_only_one_is_elected(gossip):
    won = []
    gossip.election_handlers["note"] = won.append
    alive(gossip)
    gossip.election("e1", "note", "do")
    bid(gossip, "w1@h", 5)
    acknowledge(gossip, "w1@h")

    assert won == ["do"]


def test_the_earliest_bid_wins_when_all_have_answered(gossip):
    won = []
    gossip.election_handlers["note"] = won.append
    alive(gossip, "w2@h")
    gossip.election("e1", "note", "do")
    bid(gossip, "w2@h", 9, pid=22)
    bid(gossip, "w1@h", 5)
    acknowledge(gossip, "w1@h")
    assert won == []

    acknowledge(gossip, "w2@h")
    assert won == ["do"]


def test_another_one_may_win(gossip):
    won = []
    gossip.election_handlers["note"] = won.append
    alive(gossip, "w2@h")
    gossip.election("e1", "note", "do")
    bid(gossip, "w2@h", 2, pid=22)
    bid(gossip, "w1@h", 5)
    acknowledge(gossip, "w1@h")
    acknowledge(gossip, "w2@h")

    assert won == []


def test_an_election_that_others_started_is_theirs_to_count(gossip):
    alive(gossip)
    bid(gossip, "w2@h", 5)
    acknowledge(gossip, "w2@h")  # must not raise


def test_a_bid_without_a_field_is_dropped(gossip):
    gossip.on_elect({"id": "e1", "clock": 3})

    assert gossip.dispatcher.sent == []


def test_elections_that_never_end_are_forgotten(gossip):
    for number in range(1500):
        gossip.on_elect(
            {"id": f"e{number}", "clock": 1, "hostname": "w", "pid": 1, "topic": "t", "action": None, "cver": 1}
        )

    assert len(gossip.consensus_requests) == 1000


@pytest.mark.parametrize(
    "payload",
    [None, 5, "text", [], [1], {}, {"type": 5}, {"type": "worker-online"}, {"type": "worker-heartbeat", "hostname": 5}],
)
def test_no_event_ends_gossip(gossip, payload):
    receiver = gossip.Receiver
    message = SimpleNamespace(
        delivery_info={"routing_key": "worker.online"}, headers={"hostname": "w2@h"}, payload=payload
    )

    def prepare(body):
        return body["type"], body

    gossip.on_message(prepare, message)
    assert receiver is not None


def test_task_events_are_not_even_decoded(gossip):
    class Message:
        delivery_info = {"routing_key": "task.multi"}

        @property
        def payload(self):
            raise AssertionError("decoded")

    gossip.on_message(None, Message())

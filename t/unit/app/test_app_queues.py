"""Queues: what an app declares, what is created on demand, and what a worker consumes."""

from __future__ import annotations

import pytest
from kombu import Exchange, Queue, binding

from celery.app.amqp import Queues, utf8dict


def facts(queue):
    return queue.name, queue.exchange.name, queue.exchange.type, queue.routing_key


def three():
    return Queues([Queue("a"), Queue("b"), Queue("c")])


def test_a_mapping_declares_queues_with_their_name_as_routing_key():
    queues = Queues(
        {"a": {}, "b": {"exchange": "be", "exchange_type": "topic", "routing_key": "b.x"}, "c": {"binding_key": "zz"}}
    )

    assert [facts(queue) for queue in queues.values()] == [
        ("a", "", "direct", "a"),
        ("b", "be", "topic", "b.x"),
        ("c", "", "direct", "zz"),
    ]


def test_a_queue_without_exchange_gets_the_default_one():
    queues = Queues(
        [Queue("a"), Queue("b", Exchange("own"), routing_key="k")], Exchange("def"), default_routing_key="dk"
    )

    assert [facts(queue) for queue in queues.values()] == [("a", "def", "direct", "dk"), ("b", "own", "direct", "k")]


def test_a_queue_with_bindings_keeps_them():
    queue = Queue("multi", [binding(Exchange("m1"), routing_key="k1")])

    assert not Queues([queue], Exchange("def"))["multi"].exchange


def test_a_missing_queue_is_created_with_an_exchange_of_its_name():
    queues = three()

    assert facts(queues["new"]) == ("new", "new", "direct", "new")
    assert "new" in queues
    assert "new" not in queues.consume_from


def test_a_missing_queue_is_an_error_where_none_may_be_created():
    with pytest.raises(KeyError):
        Queues([], create_missing=False)["new"]


def test_created_queues_have_the_type_and_exchange_type_that_are_set():
    queues = Queues([], create_missing_queue_type="quorum", create_missing_queue_exchange_type="topic")

    assert facts(queues["new"]) == ("new", "new", "topic", "new")
    assert queues["new"].queue_arguments == {"x-queue-type": "quorum"}
    with pytest.raises(ValueError, match="'classic' or 'quorum', is 'stream'"):
        Queues([], create_missing_queue_type="stream")["new"]


def test_autoexchange_makes_the_exchange_of_created_queues():
    assert Queues([], autoexchange=lambda name: Exchange(f"auto-{name}"))["new"].exchange.name == "auto-new"


def test_the_highest_priority_is_set_where_a_queue_says_none():
    queues = Queues(
        [Queue("a"), Queue("b", max_priority=3), Queue("c", queue_arguments={"x-max-priority": 2})], max_priority=7
    )

    assert queues["a"].queue_arguments == {"x-max-priority": 7}
    assert "x-max-priority" not in (queues["b"].queue_arguments or {})
    assert queues["c"].queue_arguments == {"x-max-priority": 2}
    assert queues["new"].queue_arguments == {"x-max-priority": 7}


def test_all_declared_queues_are_consumed_until_some_are_selected():
    queues = three()
    assert list(queues.consume_from) == ["a", "b", "c"]

    queues.select(["a", "x"])
    assert list(queues.consume_from) == ["a", "x"]
    assert list(queues) == ["a", "b", "c", "x"]


def test_selecting_nothing_changes_nothing():
    queues = three()
    queues.select(None)
    queues.select([])

    assert list(queues.consume_from) == ["a", "b", "c"]


def test_a_queue_may_be_added_to_the_selection():
    queues = three()
    queues.select("a")
    queues.select_add("y", exchange="ye", routing_key="yk")

    assert list(queues.consume_from) == ["a", "y"]
    assert facts(queues["y"]) == ("y", "ye", "direct", "yk")


def test_a_queue_may_be_added_to_what_is_consumed_without_a_selection():
    queues = three()
    queues.select_add("y")

    assert list(queues.consume_from) == ["a", "b", "c", "y"]


def test_deselected_queues_are_not_consumed_but_still_known():
    queues = three()
    queues.deselect(["a", "nope"])

    assert list(queues.consume_from) == ["b", "c"]
    assert "a" in queues


def test_an_alias_finds_its_queue():
    queues = three()
    queue = queues.add(Queue("real", alias="other"))

    assert queues["other"] is queue


def test_the_banner_shows_what_is_consumed():
    queues = Queues([Queue("a", Exchange("e", "topic"), routing_key="k"), Queue("b", Exchange("e2"), routing_key="b")])

    assert queues.format(indent=4).splitlines() == [
        "    .> a                exchange=e(topic) key=k",
        "    .> b                exchange=e2(direct) key=b",
    ]
    assert queues.format(indent=4, indent_first=False).startswith(".> a")
    queues.select(["b"])
    assert queues.format() == ".> b                exchange=e2(direct) key=b"
    queues.deselect("b")
    assert queues.format() == ""


def test_utf8dict_decodes_keys():
    assert utf8dict({b"a": b"v", "b": 1}) == {"a": b"v", "b": 1}

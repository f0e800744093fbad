import os
import socket

import pytest

from celery.utils import nodenames
from celery.utils.nodenames import (
    anon_nodename,
    default_nodename,
    gethostname,
    host_format,
    node_format,
    nodename,
    nodesplit,
    worker_direct,
)


def test_names_are_put_together_and_taken_apart():
    assert nodename("celery", "box") == "celery@box"
    assert tuple(nodesplit("celery@box@x")) == ("celery", "box@x")
    assert tuple(nodesplit("box")) == (None, "box")


@pytest.mark.parametrize(("given", "full"), [("a@b", "a@b"), ("b.x", "celery@b.x"), (None, None), ("", None)])
def test_what_is_missing_is_filled_in(given, full):
    assert default_nodename(given) == (full or f"celery@{socket.gethostname()}")


def test_processes_that_are_no_workers_have_names_too():
    assert anon_nodename("box") == f"gen{os.getpid()}@box"
    assert anon_nodename(prefix="x").endswith("@" + gethostname())


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("%n-%h-%d", "foo-bar.baz.com-baz.com"), ("%p", "foo@bar.baz.com"), ("%i%I%%", "0%"), ("plain", "plain")],
)
def test_formats_know_the_node(pattern, text):
    assert node_format(pattern, "foo@bar.baz.com") == text


def test_formats_know_the_host():
    assert host_format("%h %n %d", "a.b.c") == "a.b.c a b.c"
    assert host_format("%x", "a", x="y") == "y"
    assert node_format("%i", "a@b", i=lambda: "3") == "3"
    with pytest.raises(ValueError, match="Unknown format %q"):
        host_format("%q", "a")


def test_each_worker_can_have_a_queue_of_its_own():
    queue = worker_direct("w@h")
    assert (queue.name, queue.routing_key, queue.exchange.name, queue.auto_delete) == ("w@h.dq2", "w@h", "C.dq2", False)
    assert worker_direct(queue) is queue
    assert queue.exchange == nodenames.WORKER_DIRECT_EXCHANGE
    with pytest.raises(AttributeError):
        nodenames.nope

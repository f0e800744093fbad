import asyncio
import contextvars
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from celery.utils.threads import (
    Local,
    LocalManager,
    LocalStack,
    bgThread,
    bound_open_broker_sockets,
    default_socket_timeout,
    get_ident,
    release_local,
)


def in_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_what_is_pushed_last_is_on_top():
    stack = LocalStack()
    assert (stack.top, stack.pop(), stack.stack, len(stack)) == (None, None, [], 0)
    stack.push(1)
    stack.push(2)
    assert (stack.top, stack.stack, len(stack)) == (2, [1, 2], 2)
    assert (stack.pop(), stack.top) == (2, 1)


def test_each_thread_has_a_stack_of_its_own():
    stack = LocalStack()
    stack.push("main")
    assert in_thread(lambda: (stack.push("other"), stack.stack)[1]) == ["other"]
    assert stack.stack == ["main"]


def test_asyncio_tasks_see_the_stack_they_started_with_and_keep_their_pushes():
    stack = LocalStack()

    async def push(name, together):
        stack.push(name)
        await together.wait()
        return stack.stack

    async def main():
        together = asyncio.Event()
        tasks = [asyncio.create_task(push(name, together)) for name in "ab"]
        await asyncio.sleep(0)
        together.set()
        return [await task for task in tasks]

    stack.push("main")
    assert asyncio.run(main()) == [["main", "a"], ["main", "b"]]
    assert stack.stack == ["main"]


def test_greenlets_have_stacks_of_their_own():
    greenlet = pytest.importorskip("greenlet").greenlet
    stack = LocalStack()
    stack.push("main")
    child = greenlet(lambda: (stack.push("child"), stack.stack)[1])
    assert child.switch() == ["child"]
    assert stack.stack == ["main"]


def test_a_copied_context_shows_the_stack():
    stack = LocalStack()
    stack.push("task")
    context = contextvars.copy_context()
    assert in_thread(lambda: context.run(lambda: stack.top)) == "task"


def test_a_called_stack_is_a_proxy_of_its_top():
    stack = LocalStack()
    proxy = stack()
    with pytest.raises(RuntimeError, match="unbound"):
        proxy.anything
    stack.push([1])
    assert proxy == [1]
    release_local(stack)
    assert stack.top is None


def test_locals_are_of_one_thread():
    local = Local()
    local.a = 1
    assert in_thread(lambda: hasattr(local, "a")) is False
    assert list(local) == [(get_ident(), {"a": 1})]
    del local.a
    for use in (lambda: local.a, lambda: delattr(local, "a")):
        with pytest.raises(AttributeError, match="a"):
            use()


def test_a_manager_releases_all():
    local, stack = Local(), LocalStack()
    local.a = 1
    stack.push(1)
    manager = LocalManager([local, stack])
    manager.cleanup()
    assert (list(local), stack.top) == ([], None)
    assert manager.get_ident() == get_ident()
    assert LocalManager(local).locals == [local]
    assert LocalManager().locals == []
    assert repr(manager) == "<LocalManager storages: 2>"


def test_a_background_thread_works_until_stopped():
    rounds = threading.Semaphore(0)

    class Worker(bgThread):
        def body(self):
            rounds.release()

    worker = Worker()
    assert (worker.name, worker.daemon) == ("Worker", True)
    worker.start()
    for _ in range(3):
        assert rounds.acquire(timeout=5)
    worker.stop()
    assert not worker.is_alive()


def test_a_crash_in_the_background_ends_the_process():
    program = (
        "import time; from celery.utils.threads import bgThread\n"
        "class Crasher(bgThread):\n"
        "    def body(self): raise ValueError('boom')\n"
        "Crasher().start(); time.sleep(20)"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "'Crasher' crashed: ValueError('boom')" in done.stderr


def test_a_body_is_what_subclasses_bring():
    with pytest.raises(NotImplementedError):
        bgThread().body()


def test_the_socket_timeout_is_put_back():
    before = socket.getdefaulttimeout()
    with default_socket_timeout(3):
        assert socket.getdefaulttimeout() == 3
    assert socket.getdefaulttimeout() == before


class Holder:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def test_sockets_of_a_connection_get_a_timeout():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        amqp_like = Holder(_connection=Holder(transport=Holder(sock=ours)))
        bound_open_broker_sockets(amqp_like, 2.5)
        assert ours.gettimeout() == 2.5
        redis_like = Holder(_default_channel=Holder(client=Holder(connection=Holder(_sock=theirs))))
        bound_open_broker_sockets(redis_like, 1.5)
        assert theirs.gettimeout() == 1.5


def test_sockets_that_never_block_stay_so():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        bound_open_broker_sockets(Holder(_connection=Holder(sock=ours)), 2.5)
        assert ours.gettimeout() == 0


def test_sockets_in_a_pool_get_a_timeout():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pool = Holder(_available_connections=[Holder(_sock=ours)], _in_use_connections={Holder(_sock=theirs)})
        bound_open_broker_sockets(Holder(_transport=Holder(channels=[Holder(_pool=pool)])), 2.5)
        assert ours.gettimeout() == theirs.gettimeout() == 2.5


def test_a_closed_or_missing_socket_does_no_harm():
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    bound_open_broker_sockets(Holder(_connection=Holder(sock=ours)), 1)
    bound_open_broker_sockets(Holder(), 1)

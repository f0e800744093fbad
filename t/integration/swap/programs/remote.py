"""Remote control: ping, inspect, revoke and terminate, rate limits, pool and consumers; events."""

import threading
import time

import common

WORKER = ["-n", "remote@swap", "-E", "-c", "2"]
app = common.app("remote", worker_prefetch_multiplier=1)


@app.task
def sleep(t):
    time.sleep(t)
    return t


@app.task(rate_limit="5/s")
def limited(i):
    return time.time()


def wait_for(condition):
    for _ in range(60):
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    return None


def main(show):
    c, i = app.control, app.control.inspect(["remote@swap"], timeout=5)
    name = "remote@swap"
    show(c.ping(destination=[name], timeout=5), i.ping(), c.inspect([name], timeout=5).ping())
    show(sorted(i.registered()[name]), sorted(i.stats()[name]), i.stats()[name]["pool"]["max-concurrency"])
    show(
        [q["name"] for q in i.active_queues()[name]],
        sorted(i.conf()[name])[:0],
        i.conf()[name]["worker_prefetch_multiplier"],
    )
    r = sleep.delay(20)
    active = wait_for(lambda: i.active()[name])
    show(active[0]["name"], active[0]["args"], active[0]["type"], sorted(active[0]))
    show(next(iter(i.query_task(r.id)[name].values()))[0])
    r.revoke(terminate=True, signal="SIGTERM")
    show(type(r.get(timeout=10, propagate=False)).__name__, r.state, i.revoked()[name] == [r.id])
    r = sleep.apply_async((1,), countdown=30)
    scheduled = wait_for(lambda: i.scheduled()[name])
    show(sorted(scheduled[0]), scheduled[0]["request"]["name"], scheduled[0]["priority"])
    c.revoke(r.id)
    show(wait_for(lambda: r.id in i.revoked()[name]))
    show(
        c.rate_limit("remote.sleep", "10/m", reply=True, destination=[name], timeout=5),
        c.rate_limit("remote.sleep", 0, reply=True, destination=[name], timeout=5),
    )
    show(c.time_limit("remote.sleep", soft=30, hard=60, reply=True, destination=[name], timeout=5))
    show(
        c.add_consumer("extra", reply=True, destination=[name], timeout=5),
        sleep.apply_async((0,), queue="extra").get(timeout=10),
    )
    show(
        c.cancel_consumer("extra", reply=True, destination=[name], timeout=5),
        [q["name"] for q in i.active_queues()[name]],
    )
    show(
        c.pool_grow(1, reply=True, destination=[name], timeout=5),
        c.pool_shrink(1, reply=True, destination=[name], timeout=5),
    )
    show(
        c.broadcast("no_such", reply=True, destination=[name], timeout=5) is not None,
        i.reserved()[name],
        c.enable_events(reply=True, destination=[name], timeout=5),
    )
    time.time()
    moments = [limited.delay(n) for n in range(6)]
    moments = sorted(m.get(timeout=10) for m in moments)
    show(0.8 <= moments[-1] - moments[0] <= 1.6)
    seen, finished = [], threading.Event()

    def on_event(event):
        seen.append(event)
        if event["type"] == "task-succeeded":
            receiver.should_stop = True
            finished.set()

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": on_event})
        thread = threading.Thread(
            target=receiver.capture, kwargs={"limit": None, "timeout": 10, "wakeup": True}, daemon=True
        )
        thread.start()
        wait_for(lambda: any(e["type"] == "worker-heartbeat" for e in seen))
        r = sleep.delay(0)
        finished.wait(10)
        thread.join(5)
    mine = [e for e in seen if e.get("uuid") == r.id]
    show([e["type"] for e in mine], [sorted(e) for e in mine])
    show(sorted(c.purge() for _ in range(1)), i.clock()[name].keys() == {"clock"}, sorted(i.memdump and ["x"]))
    show(c.inspect(["nobody@x"], timeout=0.5).ping(), c.ping(destination=[name], timeout=5))
    c.shutdown(destination=[name])
    show(wait_for(lambda: not app.control.ping(timeout=0.5)))

"""Faults of servers and networks: stopped, stalled, cut, read-only, full, flushed.  Consumption resumes by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors import QUICK_START, Publisher, Worker, wait_for_progress
from proxy import MODES, Proxy
from rabbit_scenarios import SLOTS, Lane, vhost_of
from redis_scenarios import LEASE_SECONDS, lease
from scenario import Skipped, Stage, is_root, scenario
from servers import OwnRedis, wait_until

from celery.transports.redis.channel import ROUTE_SECONDS

#: A worker works again within so many seconds of the broker's return (G6).
RECOVERY_SECONDS = 5.0

#: How long anything may take before a connection counts as dead; by default 10 seconds.
PATIENCE = 1.0


def impatient(**options: Any) -> dict[str, Any]:
    return lease(socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, **options)


def recovery(stage: Stage, effects: Path | None = None, most: float = RECOVERY_SECONDS) -> float:
    """Return how many seconds pass until the next task runs; fails if that is more than ``most``."""
    effects = effects or stage.directory / "effects"
    began = time.monotonic()
    assert wait_for_progress(effects, most), f"nothing ran within {most} s of the recovery; {stage.directory}"
    return time.monotonic() - began


def at_work(stage: Stage, effects: Path | None = None) -> None:
    effects = effects or stage.directory / "effects"
    assert wait_for_progress(effects, 10), f"no task runs before the fault; {stage.directory}"


def started(stage: Stage, env: dict[str, str]) -> Worker:
    """Start a worker; where it cannot, that is what the scenario has found."""
    try:
        return stage.worker(env, *QUICK_START)
    except RuntimeError as error:
        raise AssertionError(str(error)[-500:]) from None


def check_log(worker: Worker) -> None:
    assert worker.is_running(), f"the worker ended; {worker.log}\n{worker.text()[-1500:]}"
    assert "Traceback" not in worker.text(), f"a traceback in {worker.log}"


def slowest_call(publisher: Publisher) -> float:
    return float(publisher.text().rpartition("slowest call: ")[2].split()[0])


def slow_publisher(stage: Stage, env: dict[str, str], count: int, name: str) -> Publisher:
    return stage.publish({**env, "FAULT_PACE": "0.05", "FAULT_RETRY": ""}, "effect", count, 0.001, name=name)


# -- F06: the server stands still ------------------------------------------------------------------------------------


@scenario("F06", unprotected="unprotect.deadline=off", tasks=15_000, short=0.02)
def the_server_stands_still(stage: Stage) -> dict[str, Any]:
    """The server is stopped for a while: publishers fail by their deadline, the worker works again at once."""
    redis = stage.redis()
    is_long = stage.scale >= 0.5
    conf = lease() if is_long else impatient()
    patience = 10.0 if is_long else PATIENCE
    env = stage.env(redis.url, **conf)
    worker = stage.worker(env, *QUICK_START)
    load = stage.publish(env, "effect", stage.count, 0.02)
    load.wait(120)
    others = [
        slow_publisher(stage, env, 2600 if is_long else 110, f"o{number}") for number in range(4 if is_long else 2)
    ]
    wait_until(lambda: len(stage.oracle.ids("sent")) > stage.count + 10, 20, "the other publishers to send")
    times = []
    for seconds in (5.0, 30.0, 90.0) if is_long else (4.0,):
        at_work(stage)
        stage.oracle.note_fault("stop server")
        redis.signal(signal.SIGSTOP)
        time.sleep(seconds)
        redis.signal(signal.SIGCONT)
        times.append(recovery(stage))
    for other in others:
        other.wait(200)
    slowest = max(map(slowest_call, others))
    # A call may have to connect anew first, and that has a deadline, too.
    most = 2 * patience + 0.5 if is_long else 3.0
    assert slowest <= most, f"a publication took {slowest} s"
    stage.wait_done(60 + 400 * stage.scale, settle=LEASE_SECONDS + 0.5)
    figures = stage.check(sent=stage.count, extra=0)
    check_log(worker)
    stage.check_is_quiet(redis, worker)
    return {**figures, "recovery s": rounded(times), "slowest publication s": slowest}


@scenario("F06-rabbitmq", unprotected="unprotect.adoption=off", tasks=15_000, broker="rabbitmq", long_only=True)
def rabbitmq_stands_still(stage: Stage) -> dict[str, Any]:
    """The same with RabbitMQ, for longer than its heartbeats allow."""
    server = stage.rabbit()
    env = stage.env(server.url)
    worker = stage.worker(env, *QUICK_START)
    stops = (5.0, 30.0, 90.0) if stage.scale >= 0.5 else (4.0, 15.0)
    stage.publish(env, "effect", 1, sum(stops) + 15, name="long").wait(30)  # it outlives the connections it came by
    stage.publish(env, "effect", stage.count, 0.02).wait(180)
    times = []
    for seconds in stops:
        at_work(stage)
        stage.oracle.note_fault("stop server")
        os.killpg(server.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.killpg(server.process.pid, signal.SIGCONT)
        times.append(recovery(stage, most=15))
    stage.wait_done(60 + 400 * stage.scale, quiet=30)
    figures = stage.check(extra=0)
    check_log(worker)
    return {**figures, "recovery s": rounded(times)}


def rounded(times: list[float]) -> list[float]:
    return [round(each, 2) for each in times]


# -- F07, F08: the network -------------------------------------------------------------------------------------------


@scenario("F07", unprotected="unprotect.deadline=off", tasks=20_000, short=0.015)
def the_network_lies(stage: Stage) -> dict[str, Any]:
    """Connections stall, lose one direction, are cut within a message or reset; old ones never come back."""
    redis = stage.redis()
    proxy = Proxy(redis.port)
    stage.house.callback(proxy.close)
    env = stage.env(f"redis://127.0.0.1:{proxy.port}", **impatient())
    worker = stage.worker(env, *QUICK_START)
    stage.publish(stage.env(redis.url, **lease()), "effect", stage.count, 0.03).wait(120)
    times = {}
    modes = ["stall", "drop", "cut"] if stage.scale < 0.5 else list(MODES) * 3
    stage.dice.shuffle(modes)
    for mode in modes:
        at_work(stage)
        stage.oracle.note_fault(mode)
        proxy.set(mode)
        time.sleep(0.5 if stage.scale < 0.5 else 10)
        proxy.pass_new()
        times[mode] = max(times.get(mode, 0.0), recovery(stage))
    stage.wait_done(60 + 200 * stage.scale, settle=LEASE_SECONDS + 0.5)
    figures = stage.check(unexplained=0)
    check_log(worker)
    stage.check_is_quiet(redis, worker)
    return {**figures, **{f"{mode} recovery s": round(each, 2) for mode, each in times.items()}}


@scenario("F07-unheard", unprotected="unprotect.recall=off", tasks=4_000, short=0.1)
def answers_are_lost(stage: Stage) -> dict[str, Any]:
    """Connections break while messages are on their way: these come back long before their lease ends, and once."""
    redis = stage.redis()
    proxy = Proxy(redis.port)
    stage.house.callback(proxy.close)
    worker = stage.worker(stage.env(f"redis://127.0.0.1:{proxy.port}", **lease(600)), *QUICK_START)
    stage.publish(stage.env(redis.url, **lease(600)), "effect", stage.count, 0.01).wait(120)
    lost = 0
    for _ in range(stage.times(30, 3)):
        at_work(stage)
        stage.oracle.note_fault("answers are lost")
        proxy.set("mute")
        time.sleep(stage.dice.uniform(0.2, 0.4))
        lost += redis.client.hlen("unacked") > 0
        proxy.set("reset")
        proxy.pass_new()
        recovery(stage)
    stage.wait_done(60 + 60 * stage.scale)
    figures = stage.check(extra=0)
    assert lost, "nothing was on its way"
    check_log(worker)
    stage.check_is_quiet(redis, worker)
    return {**figures, "put back": worker.text().count("that a lost connection was to bring")}


@scenario("F07-rabbitmq", unprotected="unprotect.deadline=off", tasks=20_000, broker="rabbitmq", long_only=True)
def the_network_lies_to_rabbitmq(stage: Stage) -> dict[str, Any]:
    """The same in front of RabbitMQ: heartbeats find what is dead, by default."""
    vhost = vhost_of(stage)
    proxy = Proxy(vhost.node.port)
    stage.house.callback(proxy.close)
    through = vhost.url.replace(f":{vhost.node.port}/", f":{proxy.port}/")
    worker = stage.worker(stage.env(through), *QUICK_START)
    stage.publish(stage.env(vhost.url), "effect", stage.count, 0.03).wait(180)
    times = {}
    modes = list(MODES) * (3 if stage.scale >= 0.5 else 1)
    stage.dice.shuffle(modes)
    for mode in modes:
        at_work(stage)
        stage.oracle.note_fault(mode)
        proxy.set(mode)
        time.sleep(10 if stage.scale >= 0.5 else 2)
        proxy.pass_new()
        # From the fault on: two heartbeats of five seconds until what is dead is known.
        times[mode] = max(times.get(mode, 0.0), recovery(stage, most=15))
    stage.wait_done(120 + 200 * stage.scale, quiet=30)
    figures = stage.check(unexplained=0)
    check_log(worker)
    return {**figures, **{f"{mode} recovery s": round(each, 2) for mode, each in times.items()}}


@scenario("F08", tasks=10_000, short=0.03, long_only=True)
def the_link_is_down(stage: Stage) -> dict[str, Any]:
    """The broker's machine cannot be reached, and packets just vanish: the worker stays, and waits ever longer."""
    with partition(stage) as (host, link):
        redis = OwnRedis(stage.directory, options=("--protected-mode", "no"), host=host, prefix=link.inside)
        stage.house.callback(redis.close)
        env = stage.env(f"redis://{host}:{redis.port}", **impatient())
        worker = stage.worker(env, *QUICK_START)
        stage.publish(env, "effect", stage.count, 0.03).wait(120)
        times = []
        for seconds in (10.0, 120.0) if stage.scale >= 0.5 else (3.0,):
            at_work(stage)
            stage.oracle.note_fault("link down")
            link.set("down")
            time.sleep(seconds)
            link.set("up")
            # Attempts come 2, 4, 6... seconds apart, and TCP tries again by itself.
            times.append(recovery(stage, most=RECOVERY_SECONDS if seconds < 5 else 32))
        stage.wait_done(60 + 200 * stage.scale, settle=LEASE_SECONDS + 0.5)
        figures = stage.check(unexplained=0)
        check_log(worker)
        stage.check_is_quiet(redis, worker)
        return {**figures, "recovery s": rounded(times), "log lines": worker.text().count("Cannot connect")}


class Link:
    """A pair of network devices into a namespace of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inside = ("ip", "netns", "exec", name)

    def set(self, state: str) -> None:
        # Inside: with the outer end down, packets would take the default route.
        ip("-n", self.name, "link", "set", f"{self.name}b", state)
        if state == "up":
            ip("-n", self.name, "addr", "replace", f"{address(self.name, 2)}/30", "dev", f"{self.name}b")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


def address(name: str, last: int) -> str:
    return f"10.203.{int(name[2:]) % 250}.{last}"


@contextmanager
def partition(stage: Stage) -> Iterator[tuple[str, Link]]:
    """Make a namespace with one link, yield its address and the link."""
    if not is_root():
        raise Skipped("network namespaces need root")
    name = f"ft{stage.seed % 10_000}"
    link = Link(name)
    try:
        ip("netns", "add", name)
        ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        ip("addr", "add", f"{address(name, 1)}/30", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        link.set("up")
        ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=10, check=False)
        raise Skipped(f"no network namespaces here: {error}") from None
    try:
        yield address(name, 2), link
    finally:
        stage.house.close()
        ip("netns", "del", name)


# -- F09, F10: what Redis may do -------------------------------------------------------------------------------------


@scenario("F09", unprotected="unprotect.reload=off", tasks=6_000, short=0.04)
def scripts_are_gone(stage: Stage) -> dict[str, Any]:
    """The server forgets its scripts under the worker, as by `SCRIPT FLUSH` or a failover: it is told them again."""
    return goes_on(stage, "scripts", forget_scripts)


@scenario("F09-readonly", unprotected="unprotect.moved=off", tasks=6_000, short=0.04)
def the_server_is_read_only(stage: Stage) -> dict[str, Any]:
    """Read-only for a while, as a former master after a failover: the worker waits for one that takes its writes."""
    return goes_on(stage, "read-only", be_replica)


def goes_on(stage: Stage, name: str, fault: Callable[[Stage, OwnRedis], None]) -> dict[str, Any]:
    """Play ``fault`` before a worker at work, and see that it stays and works again at once."""
    redis = stage.redis()
    env = stage.env(redis.url, **lease())
    stage.publish(env, "effect", stage.count, 0.02).wait(60)
    worker = started(stage, env)
    at_work(stage)
    stage.oracle.note_fault(name)
    fault(stage, redis)
    took = recovery(stage)
    stage.wait_done(60 + 60 * stage.scale, settle=LEASE_SECONDS + 0.5)
    figures = stage.check(unexplained=0)
    check_log(worker)
    stage.check_is_quiet(redis, worker)
    return {**figures, "recovery s": round(took, 2)}


def forget_scripts(stage: Stage, redis: OwnRedis) -> None:
    redis.command("script", "flush")


def be_replica(stage: Stage, redis: OwnRedis) -> None:
    """Be a read-only replica of nobody for a while, as a former master is after a failover."""
    redis.command("replicaof", "127.0.0.1", "1")
    time.sleep(1.0 if stage.scale < 0.5 else 10.0)
    redis.command("replicaof", "no", "one")


@scenario("F09-evicted", unprotected="unprotect.direct=off", tasks=600, short=0.1)
def keys_are_evicted(stage: Stage) -> dict[str, Any]:
    """Every key is evicted but queues and the record of who holds what: a client goes on reaching its queue."""
    redis = stage.redis()
    env = stage.env(redis.url, **lease())
    worker = started(stage, env)
    client = stage.publish(outlasts_its_routes(stage, env), "effect", stage.count, 0.001)
    at_work(stage)
    stage.oracle.note_fault("evicted")
    evicted = evict(redis)
    assert evicted, "there was nothing to evict"
    client.wait(120)
    stage.wait_done(30, settle=LEASE_SECONDS + 0.5)
    figures = stage.check(unexplained=0)
    assert worker.pings() == 1, "no answer to a ping after the eviction"
    check_log(worker)
    stage.check_is_quiet(redis, worker)
    return {**figures, "evicted": evicted}


def outlasts_its_routes(stage: Stage, env: dict[str, str]) -> dict[str, str]:
    """Return the environment of a client that sends for longer than it remembers where messages go."""
    return {**env, "FAULT_PACE": str((ROUTE_SECONDS + 3) / stage.count)}


def evict(redis: OwnRedis) -> list[str]:
    """Delete every key that is neither a queue nor the record of who holds what, and return their names."""
    redis.command("config", "set", "maxmemory-policy", "allkeys-lru")
    keys = [
        key for key in redis.client.scan_iter() if not key.startswith((b"celery\x06", b"unacked")) and key != b"celery"
    ]
    for key in keys:
        redis.client.delete(key)
    return sorted(key.decode() for key in keys)


@scenario("F09-flushed", unprotected="unprotect.rebind=off", tasks=600, short=0.1)
def everything_is_flushed(stage: Stage) -> dict[str, Any]:
    """All keys are gone, bindings, too: the loss is told once, and a client that goes on sending by them is heard."""
    redis = stage.redis()
    env = stage.env(redis.url, task_default_exchange_type="topic", **lease())
    worker = started(stage, env)
    client = stage.publish(outlasts_its_routes(stage, env), "effect", stage.count, 0.001)
    at_work(stage)
    client.signal(signal.SIGSTOP)  # what is on its way would be lost by the flush itself
    wait_until(lambda: not redis.client.llen("celery") and not redis.client.hlen("unacked"), 10, "nothing to lose")
    stage.oracle.note_fault("flushed")
    redis.command("flushall")
    wait_until(lambda: "Redis was flushed" in worker.text(), 5, "the loss to be told")
    client.signal(signal.SIGCONT)
    client.wait(120)
    stage.wait_done(30, settle=LEASE_SECONDS + 0.5)
    figures = stage.check(unexplained=0)
    assert worker.pings() == 1, "no answer to a ping after the flush"
    assert worker.text().count("Redis was flushed") == 1, "the loss was told more than once"
    check_log(worker)
    stage.check_is_quiet(redis, worker)
    return figures


@scenario("F10", unprotected="unprotect.full=off", tasks=3_000, short=0.1)
def redis_is_full(stage: Stage) -> dict[str, Any]:
    """A full server refuses messages with a word that says so; what it has is worked off, by new workers, too."""
    redis = stage.redis(options=("--maxmemory", "16mb", "--maxmemory-policy", "noeviction"))
    env = stage.env(redis.url, **lease())
    sent = fill(stage, env)
    worker = started(stage, env)
    began = time.monotonic()
    path = stage.directory / "effects"
    wait_until(lambda: path.exists() and path.read_text().count("end ") >= sent, 30, f"{sent} tasks to be done")
    drained = time.monotonic() - began
    stage.publish(env, "effect", stage.count, 0.001).wait(60)
    wait_until(lambda: path.read_text().count("end ") >= sent + stage.count, 30, "the tasks sent after that")
    stage.check_is_quiet(redis, worker)
    check_log(worker)
    return {"refused after": sent, "drained s": round(drained, 2)}


FILL = """
import json, sys, faultapp
sent = 0
while True:
    try:
        faultapp.blob.apply_async(("x" * 65536,), retry=False)
        sent += 1
    except Exception as error:
        print(json.dumps([sent, type(error).__name__, str(error)]))
        sys.exit()
"""


def fill(stage: Stage, env: dict[str, str]) -> int:
    """Publish until that is refused; returns how many messages are in the queue."""
    command = [sys.executable, "-c", FILL]
    result = subprocess.run(
        command, env=env, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60, check=False
    )
    sent, kind, text = json.loads(result.stdout)
    assert "full" in text, f"{kind}: {text}"
    assert sent > 50, f"refused after {sent}"
    return int(sent)


# -- F12, F13, F15: what RabbitMQ may do -----------------------------------------------------------------------------

CONFIRMED = {"broker_transport_options": {"confirm_publish": True}}


@scenario("F12", unprotected="unprotect.reconnect=off", tasks=2_000, short=0.1, broker="rabbitmq", long_only=True)
def rabbitmq_is_restarted(stage: Stage) -> dict[str, Any]:
    """The broker's application stops and starts again, while a publisher and a worker use it."""
    vhost = vhost_of(stage)
    lane = Lane(stage, vhost, "restarted", **CONFIRMED)
    (worker,) = lane.workers
    worker.wait_ready()
    lane.publish("effect", stage.count, 0.05).wait(60)
    times = []
    for _ in range(stage.times(8, 1)):
        at_work(stage, lane.effects)
        lane.oracle.note_fault("stop_app")
        vhost.node.ctl("stop_app")
        time.sleep(0.1 if stage.scale < 0.5 else 2)
        vhost.node.ctl("start_app")
        times.append(recovery(stage, lane.effects, 10))
        if not lane.oracle.lost():
            break
    lane.wait_done(60 + stage.count * 0.1)
    vhost.fresh()
    figures = lane.check(extra=0)
    return {**figures, "recovery s": rounded(times)}


@scenario("F13", unprotected="unprotect.durable=off", tasks=2_000, broker="rabbitmq", long_only=True)
def rabbitmq_is_killed(stage: Stage) -> dict[str, Any]:
    """The broker is killed, with classic and with quorum queues: what was confirmed is done."""
    server = stage.rabbit()
    figures, times = {}, []
    for kind in ("classic", "quorum"):
        directory = stage.directory / kind
        env = stage.env(
            server.url, directory=directory, task_default_queue=kind, task_default_queue_type=kind, **CONFIRMED
        )
        worker = stage.worker(env, *QUICK_START, name=kind)
        stage.publish(env, "effect", stage.count, 0.1, name=f"publish-{kind}").wait(180)
        oracle = type(stage.oracle)(directory)
        for _ in range(stage.times(5, 1)):
            at_work(stage, directory / "effects")
            oracle.note_fault("kill server")
            server.close()
            time.sleep(1)
            server.start()
            server.ctl("await_startup")
            times.append(recovery(stage, directory / "effects", 10))
            time.sleep(20 if stage.scale >= 1 else 1)
        wait_until(lambda oracle=oracle: not oracle.lost(), 300, f"all tasks of {kind}")
        figures[kind] = oracle.numbers()
        assert figures[kind]["invented"] == 0, figures
        if kind == "quorum":
            assert figures[kind]["unexplained"] == 0, figures
        check_log(worker)
        worker.kill_group()
    return {**figures, "recovery s": rounded(times)}


@scenario("F15", unprotected="unprotect.publishing=off", tasks=1_000, short=0.1, broker="rabbitmq", long_only=True)
def rabbitmq_is_short_of_memory(stage: Stage) -> dict[str, Any]:
    """A memory alarm: who asks for confirmations is refused at the deadline, others' tasks are done; workers go on."""
    vhost = vhost_of(stage)
    lane = Lane(stage, vhost, "alarm")
    (worker,) = lane.workers
    worker.wait_ready()
    lane.publish("effect", stage.count // 2, 0.05).wait(60)
    delayed = {**lane.env, "FAULT_COUNTDOWN": "20,20"}
    stage.publish(delayed, "effect", 4, 0.001, name="delayed").wait(30)  # these are parked during the alarm
    lane.publish("effect", stage.count // 2, 0.05).wait(60)
    at_work(stage, lane.effects)
    lane.oracle.note_fault("memory alarm")
    vhost.node.ctl("set_vm_memory_high_watermark", "0")
    stage.house.callback(vhost.node.ctl, "set_vm_memory_high_watermark", "0.4")
    seconds = 1.0 if stage.scale < 0.5 else 10.0
    trusting = {**lane.env, "FAULT_TIMEOUT": str(seconds)}
    asking = {**trusting, "FAULT_CONF": json.dumps({**json.loads(lane.env["FAULT_CONF"]), **CONFIRMED})}
    stage.publish(trusting, "effect", 3, 0.001, name="trusting")
    blocked = stage.publish(asking, "effect", 3, 0.001, name="asking")
    most = stage.count - SLOTS * 5
    wait_until(lambda: len(lane.oracle.done()) >= most, 10 + most / 20, "the worker to go on during the alarm")
    blocked.wait(15 if stage.scale < 0.5 else 60)
    vhost.node.ctl("set_vm_memory_high_watermark", "0.4")
    lane.wait_done(60 + stage.count * 0.1)
    vhost.fresh()
    figures = lane.check(extra=0)
    refused = blocked.text().count(" after ")
    assert refused == 3, f"{refused} of 3 calls were refused in the alarm; {blocked.text()[-1000:]}"
    assert slowest_call(blocked) <= seconds + 3, f"a call took {slowest_call(blocked)} s"
    return {**figures, "refused in the alarm": refused, "slowest publication s": slowest_call(blocked)}

"""Start chords and say how it went, one JSON object on the last line: ``chordclient.py VERB [NUMBER ...]``."""

import json
import resource
import sys
import time

import faultapp
from canvastasks import add, hasty_trouble, joined, member, told, trouble

from celery import chain, chord, group

app = faultapp.app


def body(label):
    return joined.s(label=label).on_error(told.s(label=label))


def troubled():
    """Start a chord for each way in which a member comes to no good end; returns id of its body by label."""
    headers = {
        "fails": trouble.s("fails"),
        "refuses": trouble.s("refuses"),
        "writes a failure and raises Ignore": trouble.s("ignores"),
        "kills its process": hasty_trouble.s("kills itself"),
        "kills its process every time": trouble.s("kills itself"),
        "kills the worker": hasty_trouble.s("kills the worker"),
        "kills the worker in a chain": member.si(1) | hasty_trouble.si("kills the worker") | member.si(1),
        "is not registered": app.signature("no.such.task"),
        "has expired": member.s(1).set(countdown=1.5, expires=0.2),
        "has expired in a chain": member.s(1).set(countdown=1.5, expires=0.2) | member.s(),
        "is revoked": member.s(1).set(countdown=6, task_id="revoked"),
        "is revoked in a chain": member.s(1).set(countdown=6, task_id="revoked-in-a-chain") | member.s(),
        "cannot be read": member.s(1).set(queue="unread", task_id="unreadable"),
        "is never delivered": member.s(1).set(queue="nowhere"),
    }
    started = {label: chord([member.s(1), sick, member.s(2)])(body(label)).id for label, sick in headers.items()}
    inner = chord([member.s(1), trouble.s("fails")], add.s())
    started["fails four chords deep"] = chord([member.s(1), chord([chord([inner], add.s())], add.s())])(
        body("fails four chords deep")
    ).id
    deadline = time.monotonic() + 20
    revoked = {"revoked", "revoked-in-a-chain"}
    while time.monotonic() < deadline:  # the worker has both and waits for their time
        held = app.control.inspect(timeout=0.5).scheduled() or {}
        if revoked <= {each["request"]["id"] for one in held.values() for each in one}:
            break
    app.control.revoke(list(revoked))
    return {"started": started}


def many(count, size):
    """Start ``count`` chords of ``size`` and wait for them."""
    began = time.monotonic()
    results = [chord(member.s(1) for _ in range(size))(body(f"many-{number}")) for number in range(count)]
    totals = [result.get(timeout=100) for result in results]
    assert totals == [size] * count, totals
    return {"seconds": time.monotonic() - began}


def large(size):
    """One chord of ``size``."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    result = chord(member.s(1) for _ in range(size))(body("large"))
    sent = time.monotonic() - began
    assert result.get(timeout=100) == size
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": time.monotonic() - began, "seconds to send": sent, "client MB": grown}


def chained(count, size):
    """A chain of ``count`` chords of ``size``, and chords four deep."""
    header = group(member.si(1) for _ in range(size))
    links = [part for number in range(count) for part in (header.clone(), body(f"link-{number}"))]
    assert chain(links).apply_async().get(timeout=100) == size
    nested = member.s(1)
    for depth in range(4):
        nested = chord([nested, member.s(1), member.s(1)], body(f"depth-{depth}"))
    assert nested.apply_async().get(timeout=100) == 9
    return {}


VERBS = {"troubled": troubled, "many": many, "large": large, "chained": chained}

if __name__ == "__main__":
    print(json.dumps(VERBS[sys.argv[1]](*map(int, sys.argv[2:]))), flush=True)

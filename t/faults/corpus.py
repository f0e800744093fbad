"""Malformed messages, made by hand and by dice; for any broker.

A case is what a careless or hostile client might publish.  Most can be published through any broker (`Case.amqp`);
those whose fault is in kombu's envelope exist only where messages lie in lists as JSON (`Case.raw`).
"""

from __future__ import annotations

import bz2
import json
import lzma
import pickle
import random
import zlib
from base64 import b64encode
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

from messages import EMBED, body_for, envelope, headers_for, new_id

TASK = "faultapp.ping"

#: What it must become: set aside with a reason; a failure of the task, like any; or anything, if only it is dealt with.
ASIDE, FAILS, ANY = "aside", "fails", "any"

#: Bound for decompressed bodies that the worker under test must have.
MOST_BYTES = 16_000_000


class Amqp(NamedTuple):
    """What is published through a broker that frames messages itself."""

    body: bytes
    headers: Any
    properties: dict[str, Any]
    content_type: str
    content_encoding: str


@dataclass(frozen=True)
class Case:
    """One malformed message; either ``raw`` (as it lies in a list) or ``amqp`` is there."""

    name: str
    expect: str
    raw: bytes | None = None
    amqp: Amqp | None = None

    def payload(self, queue: str = "celery") -> bytes:
        """Return it as it lies in a list."""
        if self.raw is not None:
            return self.raw
        assert self.amqp is not None
        body, headers, properties, content_type, content_encoding = self.amqp
        message = envelope(body, headers, queue)
        message["properties"].update(properties)
        message.update({"content-type": content_type, "content-encoding": content_encoding})
        return json.dumps(message).encode()


def good(**headers: Any) -> dict[str, Any]:
    return headers_for(TASK, new_id(), **headers)


def hand_made() -> Iterator[Case]:
    """Yield the corpus."""
    yield from raw_envelopes()
    yield from bad_headers()
    yield from bad_bodies()
    yield from bad_encodings()
    yield from bombs()
    yield from version_1()


def raw_envelopes() -> Iterator[Case]:
    """Faults of the envelope itself."""
    whole = envelope(body_for(), good())
    text = json.dumps(whole).encode()
    raws: dict[str, bytes] = {
        "empty": b"",
        "text": b"hello",
        "cut in the middle": text[: len(text) // 2],
        "not UTF-8": b"\xff\xfe" + text,
        "null": b"null",
        "a number": b"42",
        "a list": b"[1, 2, 3]",
        "an empty object": b"{}",
        "nested 100,000 deep": b"[" * 100_000,
        "a pickle": pickle.dumps(whole),
        "NUL bytes": b"\0" * 100,
        "trailing rubbish": text + b"}}}",
    }
    for name, raw in raws.items():
        yield Case(f"envelope: {name}", ASIDE, raw)
    changed: dict[str, dict[str, Any]] = {
        "without properties": {"properties": None},
        "properties a list": {"properties": []},
        "delivery_info a text": {"properties": {**whole["properties"], "delivery_info": "celery"}},
        "headers a list": {"headers": [1]},
        "headers a text": {"headers": "task"},
        "body_encoding unknown": {"properties": {**whole["properties"], "body_encoding": "rot13"}},
        "body_encoding a number": {"properties": {**whole["properties"], "body_encoding": 64}},
        "body not base64": {"body": "%%%%"},
        "body a number": {"body": 7},
        "body null": {"body": None},
        "body an object": {"body": {"a": 1}},
    }
    for name, change in changed.items():
        yield Case(
            f"envelope: {name}",
            ASIDE,
            json.dumps({**whole, **change, "headers": change.get("headers", good())}).encode(),
        )
    del whole["body"]
    yield Case("envelope: without a body", ASIDE, json.dumps(whole).encode())


def bad_headers() -> Iterator[Case]:
    """Faults in the headers of version 2, of wrong types at every field."""

    def case(name: str, headers: Any, expect: str = ASIDE) -> Case:
        return Case(f"headers: {name}", expect, amqp=Amqp(body_for(), headers, {}, "application/json", "utf-8"))

    yield case("empty", {})
    yield case("without id", {"task": TASK})
    yield case("without task", {"id": new_id()})
    yield case("unknown task", {**good(), "task": "no.such.task"})
    for field, wrong in {
        "task": [None, 5, [TASK], {"a": 1}, ""],
        "id": [None, 5, ["x"], {}, ""],
        "retries": ["three", [1], {}, 1.5],
        "eta": ["tomorrow", 5, [], {}],
        "expires": ["never", {}, []],
        "timelimit": ["ten", [1], [1, 2, 3], ["a", "b"], {}],
        "root_id": [5, {}],
        "parent_id": [5, []],
        "group": [5, {}],
        "group_index": ["first", []],
        "argsrepr": [5, {}],
        "origin": [5, []],
        "stamps": ["none", [1]],
        "stamped_headers": ["none", 5],
        "replaced_task_nesting": ["deep", []],
        "shadow": [5, {}],
    }.items():
        for value in wrong:
            yield case(f"{field} {value!r}", good(**{field: value}))
    yield case("stamped_headers of numbers", good(stamped_headers=[1]), ANY)
    yield case("nesting of a million", good(replaced_task_nesting=10**6), ANY)
    yield case("lang of another planet", good(lang="zz"), ANY)
    yield case("a header of 1 MB", good(note="x" * 1_000_000), ANY)
    yield case("compression unknown", good(compression="application/x-nothing"))
    yield case("compression a number", good(compression=5))


def bad_bodies() -> Iterator[Case]:
    """Faults in the body of version 2."""
    bodies: dict[str, tuple[Any, str]] = {
        "an object": ({"args": []}, ASIDE),
        "a number": (5, ASIDE),
        "null": (None, ASIDE),
        "two parts": ([[], {}], ASIDE),
        "args an object": ([{}, {}, EMBED], ASIDE),
        "args a text": (["abc", {}, EMBED], ASIDE),
        "kwargs a list": ([[], [], EMBED], ASIDE),
        "embed a list": ([[], {}, []], ASIDE),
        "callbacks a number": ([[], {}, {**EMBED, "callbacks": 5}], ASIDE),
        "callbacks of numbers": ([[], {}, {**EMBED, "callbacks": [5]}], ASIDE),
        "chain of texts": ([[], {}, {**EMBED, "chain": ["a"]}], ASIDE),
        "chord a number": ([[], {}, {**EMBED, "chord": 5}], ASIDE),
        "too many arguments": ([[1, 2, 3], {}, EMBED], FAILS),
        "unknown keyword": ([[], {"zzz": 1}, EMBED], FAILS),
    }
    for name, (value, expect) in bodies.items():
        yield Case(
            f"body: {name}", expect, amqp=Amqp(json.dumps(value).encode(), good(), {}, "application/json", "utf-8")
        )
    for name, body in {"no JSON": b"{[", "empty": b"", "half a character": b'["\xc3"]', "nul": b"\0\0"}.items():
        yield Case(f"body: {name}", ASIDE, amqp=Amqp(body, good(), {}, "application/json", "utf-8"))
    deep = b"[" * 50_000 + b"]" * 50_000
    yield Case("body: nested 50,000 deep", ASIDE, amqp=Amqp(deep, good(), {}, "application/json", "utf-8"))


def bad_encodings() -> Iterator[Case]:
    """Faults in content type and content encoding."""
    types = {
        "pickle": ("application/x-python-serialize", "binary", pickle.dumps(([], {}, EMBED))),
        "yaml": ("application/x-yaml", "utf-8", b"[[], {}, {}]"),
        "unknown": ("application/x-nothing", "utf-8", body_for()),
        "empty": ("", "utf-8", body_for()),
        "no such charset": ("text/plain", "utf-99", body_for()),
    }
    for name, (content_type, content_encoding, body) in types.items():
        yield Case(f"content: {name}", ASIDE, amqp=Amqp(body, good(), {}, content_type, content_encoding))
    evil = b"cos\nsystem\n(S'touch /tmp/celeriac-was-here'\ntR."
    yield Case(
        "content: a pickle that runs a command",
        ASIDE,
        amqp=Amqp(evil, good(), {}, "application/x-python-serialize", "binary"),
    )


def bombs() -> Iterator[Case]:
    """Bodies that become too large, and compressed ones that are damaged."""
    blanks = b"[[" + b" " * (MOST_BYTES * 4) + b"], {}, {}]"
    packed = {
        "application/x-gzip": zlib.compress(blanks, 9),
        "application/x-bz2": bz2.compress(blanks, 9),
        "application/x-lzma": lzma.compress(blanks, preset=1),
    }
    for content_type, body in packed.items():
        headers = good(compression=content_type)
        yield Case(f"bomb: {content_type}", ASIDE, amqp=Amqp(body, headers, {}, "application/json", "utf-8"))
        cut = Amqp(body[: len(body) // 2], good(compression=content_type), {}, "application/json", "utf-8")
        yield Case(f"damaged: {content_type}", ASIDE, amqp=cut)
    plain = Amqp(body_for(), good(compression="application/x-gzip"), {}, "application/json", "utf-8")
    yield Case("damaged: said to be compressed and is not", ASIDE, amqp=plain)


def version_1() -> Iterator[Case]:
    """Faults in messages of version 1: everything is in the body."""

    def case(name: str, body: Any, expect: str = ASIDE) -> Case:
        return Case(
            f"version 1: {name}", expect, amqp=Amqp(json.dumps(body).encode(), {}, {}, "application/json", "utf-8")
        )

    def body(**changes: Any) -> dict[str, Any]:
        return {"task": TASK, "id": new_id(), "args": [], "kwargs": {}, "retries": 0, "eta": None, **changes}

    yield case("a list", [1, 2])
    yield case("a text", "hello")
    yield case("empty", {})
    yield case("without id", {"task": TASK})
    yield case("unknown task", body(task="no.such"))
    for field, wrong in {
        "task": [5, None, []],
        "id": [5, None, {}],
        "args": [5, "abc", {"a": 1}],
        "kwargs": [5, []],
        "eta": ["soon", 5],
        "expires": ["soon"],
        "retries": ["x"],
        "timelimit": ["x", [1]],
        "callbacks": [5],
        "taskset": [5],
    }.items():
        for value in wrong:
            yield case(f"{field} {value!r}", body(**{field: value}))


# -- by dice

JUNK: tuple[Any, ...] = (None, True, -1, 0, 1e308, "", "x", "\0", [], {}, [None], {"a": 1}, "9" * 400, 2**70)


def mutations(seed: int, count: int) -> Iterator[Case]:
    """Yield ``count`` good messages, each with something changed in it."""
    dice = random.Random(seed)
    for number in range(count):
        message = envelope(body_for(), good())
        kind = dice.choice(("value", "value", "value", "drop", "bytes", "cut", "body", "swap"))
        payload = mutated(dice, message, kind, body_for())
        yield Case(f"mutation {number} of seed {seed}: {kind}", ANY, payload)


def mutated(dice: random.Random, message: dict[str, Any], kind: str, plain_body: bytes) -> bytes:
    """Return ``message`` as JSON, with a change of this ``kind``; ``body`` changes ``plain_body`` and puts it in."""
    if kind in ("value", "drop"):
        for _ in range(dice.choice((1, 1, 2, 4))):
            places = list(_places(message))
            if not places:  # nothing is left of it
                break
            place, key = dice.choice(places)
            if kind == "drop":
                place.pop(key, None)
            elif key in place:
                place[key] = deepcopy(dice.choice(JUNK))
    if kind == "body":
        body = bytearray(plain_body)
        for _ in range(dice.randint(1, 4)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        message["body"] = b64encode(body).decode()
    payload = bytearray(json.dumps(message).encode())
    if kind == "bytes":
        for _ in range(dice.randint(1, 6)):
            payload[dice.randrange(len(payload))] = dice.randrange(256)
    if kind == "cut":
        del payload[dice.randrange(len(payload)) :]
    if kind == "swap":
        start, end = sorted(dice.randrange(len(payload)) for _ in range(2))
        payload[start:end] = payload[start:end][::-1]
    return bytes(payload)


def _places(value: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every (object, key) of a message."""
    for key, inner in value.items():
        yield value, key
        if isinstance(inner, dict):
            yield from _places(inner)

"""Signed messages made by hand, and what an intruder makes of those that he has seen."""

from __future__ import annotations

import json
import pickle
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import certificates
from messages import EMBED, body_for, envelope, headers_for, new_id

from celery.security.certificate import Certificate, CertStore
from celery.security.document import SIGNATURE
from celery.security.key import PrivateKey
from celery.security.serialization import SecureSerializer
from celery.security.signing import COMMAND, TASK, Signing

TASK_NAME = "faultapp.effect"
DAY = 86_400.0
CONTENT_TYPE = "application/data"


def settings(directory: Path) -> dict[str, Any]:
    """Return the settings of an app that signs as alice."""
    return {
        "task_serializer": "auth",
        "accept_content": ["auth"],
        "result_serializer": "auth",
        "event_serializer": "auth",
        "security_key": str(directory / "alice.key"),
        "security_certificate": str(directory / "store" / "alice.pem"),
        "security_cert_store": str(directory / "store"),
    }


class Forger:
    """Somebody with a key, in the store of the fleet or not."""

    def __init__(
        self, directory: Path, name: str, is_known: bool = True, days: tuple[float, float] = (-1, 365)
    ) -> None:
        store = directory / "store" if is_known else None
        self.identity = certificates.make(directory, name, days=days, store=store)
        self.key = PrivateKey(self.identity.key.read_bytes())
        self.certificate = Certificate(self.identity.certificate.read_bytes())
        self.serializer = SecureSerializer(self.key, self.certificate, CertStore())

    def task(self, args: Any = (0,), age: float = 0.0, queue: str = "celery", **headers: Any) -> dict[str, Any]:
        """Return a task message as it lies in a list of Redis; ``age`` in seconds."""
        body = self.serializer.serialize([list(args), {}, EMBED]).encode()
        message = envelope(body, headers_for(TASK_NAME, new_id(), **headers), queue)
        message["content-type"] = CONTENT_TYPE
        self.sign(message, body, age=age, routing_key=queue)
        return message

    def command(
        self, method: str, arguments: dict[str, Any] | None = None, age: float = 0.0, **fields: Any
    ) -> dict[str, Any]:
        """Return a remote control command as it is published."""
        body = self.serializer.serialize({"method": method, "arguments": arguments or {}, **fields}).encode()
        message = envelope(body, {"clock": 1, "expires": 0}, "")
        message["content-type"] = CONTENT_TYPE
        del message["properties"]["reply_to"]  # commands have theirs in the body
        message["properties"]["delivery_info"] = {"exchange": "celery.pidbox", "routing_key": ""}
        self.sign(message, body, COMMAND, age, "celery.pidbox", "")
        return message

    def sign(
        self,
        message: dict[str, Any],
        body: bytes,
        kind: str = TASK,
        age: float = 0.0,
        exchange: str = "",
        routing_key: str = "celery",
    ) -> None:
        """Put the signature into the headers of ``message``."""
        signing = Signing(self.key, self.certificate, None, "sha256", None, clock=lambda: time.time() - age)
        properties = message["properties"] if kind == TASK else {}
        arguments = message["content-type"], message["content-encoding"], message["headers"], properties
        signing.sign(kind, body, *arguments, exchange, routing_key)


class Attack(NamedTuple):
    """A message that must not run: what is wrong with it, and the queue in which it is put."""

    name: str
    message: dict[str, Any]
    queue: str = "celery"


class Kit(NamedTuple):
    """Who an intruder knows, and the good messages that he has seen."""

    alice: Forger
    bob: Forger  # was in the store once
    mallory: Forger  # never was
    old: Forger  # in the store, expired
    done: dict[str, Any]  # a message that has run
    running: dict[str, Any]  # one that runs


def attacks(kit: Kit) -> Iterator[Attack]:
    """Yield everything that a signature is to keep out."""
    yield from unsigned(kit)
    yield from strangers(kit)
    yield from changed(kit)
    yield from elsewhere(kit)
    yield Attack("replay of what has run", kit.done)
    yield Attack("replay of what runs", kit.running)
    yield Attack("too old", kit.alice.task(age=4 * DAY))
    yield Attack("from the future", kit.alice.task(age=-DAY))


def unsigned(kit: Kit) -> Iterator[Attack]:
    plain = envelope(body_for((0,)), headers_for(TASK_NAME, new_id()))
    yield Attack("plain JSON", plain)
    body_only = kit.alice.task()
    del body_only["headers"][SIGNATURE]
    yield Attack("only the body signed", body_only)
    evil = plain | {"body": b64encode(pickle.dumps([[0], {}, EMBED])).decode()}
    yield Attack("a pickle", evil | {"content-type": "application/x-python-serialize", "content-encoding": "binary"})
    yield Attack("said to be signed", plain | {"content-type": CONTENT_TYPE})
    for content_type in ("application/text", "text/plain", "", None):
        yield Attack(f"content type {content_type!r}", plain | {"content-type": content_type})


def strangers(kit: Kit) -> Iterator[Attack]:
    yield Attack("a stranger's", kit.mallory.task())
    yield Attack("of a key that was removed", kit.bob.task())
    yield Attack("of an expired certificate", kit.old.task())
    half = kit.alice.task()  # body by alice, headers by mallory
    kit.mallory.sign(half, b64decode(half["body"]))
    yield Attack("signed again by a stranger", half)
    claim = json.loads(half["headers"][SIGNATURE])
    claim["key"] = kit.alice.certificate.get_id()
    half = deepcopy(half)
    half["headers"][SIGNATURE] = json.dumps(claim)
    yield Attack("a stranger's under another name", half)


def changed(kit: Kit) -> Iterator[Attack]:
    def spoilt(name: str, *path: str, value: Any) -> Attack:
        message = kit.alice.task()
        place = message
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return Attack(name, message)

    other_body = kit.alice.task(args=(5,))["body"]
    yield spoilt("another body of the same signer", "body", value=other_body)
    yield spoilt("a body cut short", "body", value=other_body[:-16])
    yield spoilt("content type", "content-type", value="application/json")
    yield spoilt("content encoding", "content-encoding", value="binary")
    for name, value in {
        "task": "faultapp.ping",
        "id": new_id(),
        "eta": "2000-01-01T00:00:00+00:00",
        "expires": "2100-01-01T00:00:00+00:00",
        "retries": 1,
        "timelimit": [1000, 1000],
        "root_id": new_id(),
        "parent_id": new_id(),
        "group": new_id(),
        "ignore_result": True,
        "stamps": {"a": 1},
        "shadow": "harmless",
        "argsrepr": "(1,)",
    }.items():
        yield spoilt(f"header {name}", "headers", name, value=value)
    yield spoilt("reply_to", "properties", "reply_to", value=new_id())
    for name, value in {"null": None, "empty": "", "junk": "junk", "a list": [], "deep": "[" * 10_000}.items():
        yield spoilt(f"signature: {name}", "headers", SIGNATURE, value=value)
    message = kit.alice.task()
    claim = json.loads(message["headers"][SIGNATURE])
    for name, value in {
        "sig": claim["sig"][:-4],
        "nonce": "0" * 32,
        "at": claim["at"] + 1,
        "to": ["", "other"],
        "names": ["x"],
        "v": 2,
    }.items():
        again = deepcopy(message)
        again["headers"][SIGNATURE] = json.dumps({**claim, name: value})
        yield Attack(f"signature: other {name}", again)


def elsewhere(kit: Kit) -> Iterator[Attack]:
    yield Attack("in another queue", kit.alice.task(), "other")
    moved = kit.alice.task()
    moved["properties"]["delivery_info"] = {"exchange": "", "routing_key": "other"}
    yield Attack("in another queue, and said to be for it", moved, "other")


def flipped(dice: Any, message: dict[str, Any]) -> dict[str, Any] | bytes:
    """Return ``message`` with some characters of its signed parts changed, by dice."""
    message = deepcopy(message)
    where = dice.choice(("body", "signature", "headers"))
    if where == "headers":
        name = dice.choice([name for name in message["headers"] if name != SIGNATURE])
        message["headers"][name] = dice.choice(("x", 7, ["x"], {"x": 1}, new_id(), True))
        return message
    text = bytearray((message["body"] if where == "body" else message["headers"][SIGNATURE]).encode())
    for _ in range(dice.randint(1, 4)):
        position = dice.randrange(len(text) - 4)  # the last bits of base64 may mean nothing
        text[position] = dice.choice([code for code in b"AZaz09+/" if code != text[position]])
    if where == "body":
        message["body"] = text.decode()
    else:
        message["headers"][SIGNATURE] = text.decode()
    return message

"""Task messages made by hand, so that the harness can send what no client would."""

from __future__ import annotations

import json
import time
import uuid
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def new_id() -> str:
    return str(uuid.uuid4())


def headers_for(name: str, task_id: str, **changes: Any) -> dict[str, Any]:
    """Return the headers of a version 2 message."""
    return {
        "lang": "py",
        "task": name,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "harness",
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        **changes,
    }


def envelope(body: bytes, headers: Any, queue: str = "celery", **changes: Any) -> dict[str, Any]:
    """Return a message as it lies in a list of Redis."""
    task_id = headers.get("id") if isinstance(headers, dict) else None
    return {
        "body": b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": task_id,
            "reply_to": new_id(),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": new_id(),
        },
        **changes,
    }


def body_for(args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None, embed: Any = EMBED) -> bytes:
    return json.dumps([list(args), kwargs or {}, embed]).encode()


def task_message(
    name: str, args: Sequence[Any] = (), task_id: str | None = None, queue: str = "celery", **headers: Any
) -> tuple[str, bytes]:
    """Return id and payload of a good message of version 2."""
    task_id = task_id or new_id()
    return task_id, json.dumps(envelope(body_for(args), headers_for(name, task_id, **headers), queue)).encode()


def stored_result(client: Any, task_id: str, seconds: float = 0.0) -> dict[str, Any] | None:
    """Return the record of a task in Redis, waiting for it at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        record = client.get(f"celery-task-meta-{task_id}")
        if record is not None:
            found: dict[str, Any] = json.loads(record)
            if found["status"] not in ("STARTED", "RETRY"):
                return found
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)

"""A workflow gives what its last task returns."""

from __future__ import annotations

from celery import Celery, Signature, chain, chord, group, signature
from celery.result import GroupResult

app = Celery("typing")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def text(x: int) -> str:
    return str(x)


@app.task
def total(xs: list[int]) -> int:
    return sum(xs)


reveal_type(add.s(1, 2))  # R: Signature[int]
reveal_type(add.si(1, 2))  # R: Signature[int]
reveal_type(add.signature((1, 2), queue="q"))  # R: Signature[int]
reveal_type(add.s(1).delay(2).get())  # R: int
reveal_type(add.s(1, 2).apply_async(countdown=3).get())  # R: int
reveal_type(add.s(1, 2).apply().get())  # R: int
reveal_type(add.s(1)(2))  # R: int
reveal_type(~add.s(1, 2))  # R: int
reveal_type(add.s(1, 2).freeze())  # R: AsyncResult[int]
reveal_type(add.s(1, 2).set(queue="q").clone().on_error(text.s()))  # R: Signature[int]
reveal_type(add.s(1, 2) | text.s())  # R: Signature[str]
reveal_type((add.s(1, 2) | text.s()).apply_async().get())  # R: str
reveal_type((group(add.s(1, 2), add.s(3, 4)) | total.s()).delay().get())  # R: int
reveal_type(group(add.s(1, 2), add.s(3, 4)).apply_async())  # R: GroupResult
reveal_type(group(add.s(1, 2)).delay().get())  # R: list[Any]
reveal_type(chain(add.s(1, 2), text.s()).apply_async().get())  # R: Any
reveal_type(chord([add.s(1, 2)])(total.s()).get())  # R: Any
reveal_type(signature("tasks.add", (1, 2)).delay().get())  # R: Any

add.s(1, 2) | 3  # E: Unsupported operand types for | ("Signature[int]" and "int")


def kept(sig: Signature[int], members: GroupResult) -> int:
    return sig.delay().get() + sum(members.get())

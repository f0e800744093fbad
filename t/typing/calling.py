"""Tasks are called with what their functions take, and give what these return."""

from __future__ import annotations

from celery import Celery, Task, shared_task
from celery.result import AsyncResult, EagerResult

app = Celery("typing")


@app.task
def add(x: int, y: int = 1) -> int:
    return x + y


@app.task(name="tasks.words", max_retries=3, queue="q")
def words(text: str, *, limit: int | None = None) -> list[str]:
    return text.split()[:limit]


@app.task(bind=True)
def fetch(self: Task, url: str) -> bytes:
    reveal_type(self.request)  # R: Context
    try:
        return url.encode()
    except ValueError as error:
        raise self.retry(exc=error, countdown=3)


@shared_task
def half(x: float) -> float:
    return x / 2


@shared_task(bind=True, ignore_result=True)
def note(self: Task, text: str) -> None: ...


@shared_task(name="named")
def named(x: int) -> str:
    return str(x)


reveal_type(add)  # R: Task[[x: int, y: int =], int]
reveal_type(add(1, 2))  # R: int
reveal_type(add.delay(1, 2))  # R: AsyncResult[int]
reveal_type(add.delay(1, 2).get())  # R: int
reveal_type(add.delay(1).get(timeout=3, propagate=False))  # R: int
reveal_type(add.delay(x=1, y=2).maybe_throw())  # R: int
reveal_type(add.apply_async((1, 2), countdown=3, queue="q").get())  # R: int
reveal_type(add.apply((1, 2)))  # R: EagerResult[int]
reveal_type(add.apply((1, 2)).get())  # R: int
reveal_type(add.AsyncResult("id").get())  # R: int
reveal_type(add.run(1, 2))  # R: int
reveal_type(words.delay("a b", limit=1).get())  # R: list[str]
reveal_type(fetch.delay("https://example.org").get())  # R: bytes
reveal_type(half.delay(3).get())  # R: float
reveal_type(named.delay(3).get())  # R: str
reveal_type(note.delay("text"))  # R: AsyncResult[None]
reveal_type(add.name)  # R: str
reveal_type(app.AsyncResult("id").get())  # R: Any

add.delay("1", 2)  # E: Argument 1 to "delay" of "Task" has incompatible type "str"; expected "int"
add.delay()  # E: Missing positional argument "x" in call to "delay" of "Task"
add.delay(1, 2, 3)  # E: Too many arguments for "delay" of "Task"
add.delay(1, z=2)  # E: Unexpected keyword argument "z" for "delay" of "Task"
add("1")  # E: Argument 1 to "__call__" of "Task" has incompatible type "str"; expected "int"
words.delay("a", 1)  # E: Too many positional arguments for "delay" of "Task"
fetch.delay(3)  # E: Argument 1 to "delay" of "Task" has incompatible type "int"; expected "str"
note.delay()  # E: Missing positional argument "text" in call to "delay" of "Task"
half.delay("x")  # E: Argument 1 to "delay" of "Task" has incompatible type "str"; expected "float"
wrong: str = add(1)  # E: Incompatible types in assignment (expression has type "int", variable has type "str")


class Counting(Task):
    """A base class of tasks, with more on it."""

    counted = 0

    def before_start(self, task_id: str, args: object, kwargs: object) -> None:
        self.counted += 1


@app.task(base=Counting, bind=True)
def counted(self: Counting, x: int) -> int:
    return x + self.counted


reveal_type(counted)  # R: Counting
reveal_type(counted.counted)  # R: int


class Adding(Task[[int, int], int]):
    def run(self, x: int, y: int) -> int:
        return x + y


reveal_type(Adding().delay(1, 2).get())  # R: int
Adding().delay("1", 2)  # E: Argument 1 to "delay" of "Task" has incompatible type "str"; expected "int"


def later(result: AsyncResult[int], task: Task[[int], str], eager: EagerResult[str]) -> list[str]:
    reveal_type(result.get())  # R: int
    reveal_type(eager.get())  # R: str
    return [task.delay(result.get()).get()]

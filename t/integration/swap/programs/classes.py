"""Task classes: bases, registered instances, annotations, inheritance, state kept in a process."""

import common

from celery import Task, shared_task

WORKER = ["-c", "1"]  # it counts in one process, and which of two takes a task is nobody's promise

app = common.app(
    "classes",
    accept_content=["json", "pickle"],
    task_annotations={"classes.annotated": {"rate_limit": "7/s", "max_retries": 9}, "*": {"priority": 4}},
    imports=(),
)


class Database(Task):
    abstract = True
    _db = None

    @property
    def db(self):
        if self._db is None:
            self._db = {"opened": 0}
        self._db["opened"] += 1
        return self._db


@app.task(base=Database, bind=True)
def count(self):
    return self.db["opened"]


class Custom(app.Task):
    name = "custom.add"
    ignore_result = False

    def __init__(self):
        self.offset = 100

    def run(self, x, y):
        return x + y + self.offset


class Second(Custom):
    name = "custom.second"

    def run(self, x, y):
        return super().run(x, y) * 2


custom = app.register_task(Custom())
second = app.register_task(Second())


@app.task
def annotated():
    return annotated.rate_limit, annotated.max_retries, annotated.priority


class Calling(Task):
    def __call__(self, *args, **kwargs):
        return ["wrapped", self.run(*args, **kwargs)]

    def apply_async(self, args=None, kwargs=None, **options):
        return super().apply_async(args, {**(kwargs or {}), "extra": 1}, **options)


@app.task(base=Calling)
def called(x, extra=0):
    return x, extra


@shared_task(name="shared.one", queue="celery")
def shared_one(x):
    return "shared", x


@app.task(bind=True, name="introspect")
def introspect(self):
    return [
        self.app is app,
        self.request.id is not None,
        type(self).__name__,
        type(self).__mro__[1].__name__,
        self.__name__,
        self.backend is app.backend,
    ]


@app.task(pydantic=False, serializer="pickle", track_started=True, priority=2)
def pickled(x):
    return type(x).__name__


def main(show):
    show([count.delay().get(timeout=10) for _ in range(3)])
    show(
        custom.delay(1, 2).get(timeout=10),
        second.delay(1, 2).get(timeout=10),
        app.tasks["custom.add"] is custom,
        custom(1, 1),
    )
    show(annotated.delay().get(timeout=10), annotated.rate_limit, count.priority)
    show(called.delay(5).get(timeout=10), called(6), called.run(7))
    show(shared_one.delay(1).get(timeout=10), shared_one.name, shared_one.app is app)
    show(introspect.delay().get(timeout=10))
    show(pickled.delay({1, 2}).get(timeout=10), pickled.serializer, pickled.track_started)
    show(
        isinstance(count, Database),
        isinstance(count, Task),
        repr(Custom),
        repr(custom)[:30],
        Custom.__name__,
        Database.abstract,
        count.abstract,
    )
    show(count.__wrapped__.__name__, annotated.__qualname__, app.Task.__name__, type(app.tasks).__name__)
    show(app.gen_task_name("name", "module"), app.gen_task_name("name", "__main__"), app.tasks.regular() is not None)

    @app.task(name="late")
    def late():
        return 1

    show("late" in app.tasks, late.apply().get(), app.tasks.unregister("late"), "late" in app.tasks)
    try:
        app.tasks["nothing"]
    except KeyError as error:
        show(type(error).__name__, error)

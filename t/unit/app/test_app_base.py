"""The application: tasks, names, life, pickling."""

from __future__ import annotations

import datetime
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest

import celery
from celery import Celery, shared_task
from celery.app import app_or_default, default_app
from celery.app.registry import TaskRegistry, _unpickle_task, _unpickle_task_v2
from celery.exceptions import (
    DuplicateTaskNameWarning,
    FixupWarning,
    ImproperlyConfigured,
    InvalidTaskError,
    NotRegistered,
)


@pytest.fixture
def app():
    with Celery("test", set_as_current=False, fixups=[], broker="memory://") as app:
        yield app


@pytest.fixture
def current(app, monkeypatch):
    monkeypatch.setattr("celery._state._tls.current_app", app)
    return app


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- making tasks


def test_a_decorated_function_becomes_a_task_when_it_is_used(app):
    @app.task(shared=False)
    def add(x, y):
        """Add."""
        return x + y

    assert not app.finalized
    assert add.name == f"{__name__}.add"
    assert app.tasks[add.name] == add
    assert app.finalized
    assert (add(2, 3), add.__doc__, add.__module__, add.__qualname__.rpartition(".")[-1]) == (
        5,
        "Add.",
        __name__,
        "add",
    )
    assert add.__wrapped__(1, 2) == 3


def test_options_become_attributes_and_bind_gives_the_task(app):
    @app.task(shared=False, name="named", bind=True, max_retries=7, mine=1)
    def whoami(self, x):
        return self.name, x

    assert (whoami.name, whoami.max_retries, whoami.mine, whoami(3)) == ("named", 7, 1, ("named", 3))
    assert type(whoami._get_current_object()).__name__ == "whoami"


def test_a_base_class_gives_behaviour(app):
    class Base(app.Task):
        abstract = True
        greeting = "hi"

    @app.task(shared=False, base=Base, bind=True)
    def greet(self):
        return self.greeting

    assert greet() == "hi"
    assert isinstance(greet, Base)


def test_without_lazy_the_task_is_made_at_once(app):
    task = app.task(lazy=False, shared=False)(lambda: 1)

    assert task() == 1
    assert isinstance(task, app.Task)


def test_a_filter_decides_what_the_name_means(app):
    @app.task(shared=False, filter=lambda task: ("filtered", task.name))
    def some():
        pass

    assert some == ("filtered", f"{__name__}.some")


@pytest.mark.parametrize("args", [(1,), (len, len), ("name",)])
def test_anything_but_a_function_is_refused(app, args):
    with pytest.raises(TypeError):
        app.task(*args)


def test_tasks_of_the_main_script_are_named_after_the_app(app):
    assert app.gen_task_name("add", "__main__") == "test.add"
    assert app.gen_task_name("add", "proj.tasks") == "proj.tasks.add"
    with Celery(set_as_current=False, fixups=[]) as nameless:
        assert nameless.gen_task_name("add", "__main__") == "__main__.add"


def test_the_header_checks_arguments(app):
    @app.task(shared=False, bind=True)
    def add(self, x, y=1):
        pass

    add.__header__(1, y=2)
    with pytest.raises(TypeError, match=r"add\(\) missing 1 required positional argument: 'x'"):
        add.__header__()


def test_a_class_is_registered_as_an_object_of_it(app):
    class Sum(app.Task):
        def run(self, *numbers):
            return sum(numbers)

    task = app.register_task(Sum)

    assert task.name == f"{__name__}.Sum"
    assert app.tasks[task.name] is task
    assert (task(1, 2), task.app) == (3, app)


def test_without_autofinalize_nothing_is_made_before_its_time():
    with Celery("late", set_as_current=False, fixups=[], autofinalize=False) as app:

        @app.task(shared=False)
        def some():
            pass

        with pytest.raises(RuntimeError, match="not finalized"):
            some.name
        with pytest.raises(RuntimeError, match="not finalized"):
            app.tasks
        app.finalize()

        assert some.name in app.tasks


def test_finalizing_tells_once(app):
    told = []
    app.on_after_finalize.connect(lambda sender, **kwargs: told.append(sender), weak=False)
    app.finalize()
    app.finalize()

    assert told == [app]


def test_many_threads_finalize_one_app_once(app):
    made = []

    class Counted(app.Task):
        abstract = True

        @classmethod
        def on_bound(cls, app):
            made.append(cls.name)

    tasks = [app.task(shared=False, base=Counted, name=f"t{number}")(lambda: None) for number in range(20)]
    start = threading.Barrier(8)
    seen = []

    def use():
        start.wait()
        seen.append([task.name for task in tasks])

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [[f"t{number}" for number in range(20)]] * 8
    assert len({id(app.tasks[name]) for name in seen[0]}) == 20


# -- two tasks of one name


def test_the_first_of_two_functions_under_one_name_is_kept_whichever_is_used_first(app):
    @app.task(shared=False, name="dup-one")
    def one():
        return 1

    with pytest.warns(DuplicateTaskNameWarning) as caught:

        @app.task(shared=False, name="dup-one")
        def two():
            return 2

    assert two() == one() == app.tasks["dup-one"]() == 1
    (warning,) = caught
    assert warning.filename == __file__
    assert f"{os.path.basename(__file__)}:" in str(warning.message)
    assert "one" in str(warning.message)
    assert "two" in str(warning.message)


def test_the_same_code_read_twice_is_no_duplicate(app):
    def make():
        def some():
            pass

        return some

    app.task(shared=False, name="same-twice")(make())
    app.task(shared=False, name="same-twice")(make())
    app.finalize()


def test_a_registered_class_takes_the_place_of_another_and_says_so(app):
    class One(app.Task):
        name = "dup-class"

        def run(self):
            return 1

    class Two(app.Task):
        name = "dup-class"

        def run(self):
            return 2

    app.register_task(One())
    with pytest.warns(DuplicateTaskNameWarning, match="The second one is used"):
        app.register_task(Two())

    assert app.tasks["dup-class"]() == 2


# -- shared tasks


def test_shared_tasks_belong_to_every_app():
    out = python("""
        from celery import Celery, shared_task

        before = Celery("before")
        before.finalize()

        @shared_task
        def plain(): return 1

        @shared_task(name="named", bind=True, max_retries=9)
        def named(self): return self.app.main

        after = Celery("after")
        assert "__main__.plain" in after.tasks or "after.plain" in after.tasks
        print(named(), named.max_retries, "named" in before.tasks, "named" in after.tasks, named.app.main)
        before.set_current()
        print(named())
    """)

    assert out.splitlines() == ["after 9 True True after", "before"]


def test_shared_task_takes_one_function_or_keywords():
    with pytest.raises(TypeError):
        shared_task(1)


def test_tasks_of_one_app_reach_apps_that_are_finalized_later_unless_told_otherwise():
    out = python("""
        from celery import Celery
        one = Celery("one")
        @one.task(name="mine")
        def mine(): pass
        @one.task(name="private", shared=False)
        def private(): pass
        two = Celery("two")
        print("mine" in two.tasks, "private" in two.tasks)
    """)

    assert out == "True False"


# -- the registry


def test_an_unknown_task_is_not_registered(app):
    with pytest.raises(NotRegistered, match="nope"):
        app.tasks["nope"]
    with pytest.raises(NotRegistered):
        app.tasks.unregister("nope")


def test_the_registry_takes_objects_and_classes(app):
    class Some(app.Task):
        name = "reg-some"

        def run(self):
            pass

    registry = TaskRegistry()
    registry.register(Some)
    assert isinstance(registry["reg-some"], Some)
    assert registry.regular() == registry
    assert registry.periodic() == {}
    registry.unregister(registry["reg-some"])
    assert registry == {}

    class Nameless(app.Task):
        name = None

    with pytest.raises(InvalidTaskError, match="Nameless"):
        registry.register(Nameless)


def test_a_given_registry_is_used():
    registry = TaskRegistry()
    with Celery("test", set_as_current=False, fixups=[], tasks=registry) as app:
        assert app.tasks is registry
        assert "celery.chain" in registry


# -- the current app


def test_an_app_is_current_unless_told_otherwise():
    out = python("""
        import celery
        from celery import Celery, current_app
        from celery.app import app_or_default, default_app
        one = Celery("one")
        assert current_app == one
        two = Celery("two", set_as_current=False)
        assert current_app.main == "one" and app_or_default() is one and app_or_default(two) is two
        two.set_current()
        assert current_app.main == "two"
        one.set_default()
        import threading
        seen = []
        thread = threading.Thread(target=lambda: seen.append(current_app.main)); thread.start(); thread.join()
        print(seen, default_app.main)
    """)

    assert out == "['one'] one"


def test_where_there_is_no_app_a_default_one_is_made():
    out = python("""
        from celery import current_app
        print(current_app.main, type(current_app.loader).__module__)
    """)

    assert out == "default celery.loaders.default"


def test_app_or_default_gives_what_it_is_given(app):
    assert app_or_default(app) is app
    assert repr(default_app) == repr(celery._state.default_app)


# -- configuration


def test_configuration_is_read_once_and_told(app):
    calls = []
    app.on_configure.connect(lambda sender, **kwargs: calls.append("configure"), weak=False)
    app.on_after_configure.connect(lambda sender, source, **kwargs: calls.append(source), weak=False)
    app.conf.task_serializer
    app.conf.task_serializer

    assert calls == ["configure", app.conf]


def test_a_handler_of_on_configure_may_read_settings(app):
    app.config_from_object({"task_serializer": "yaml"})
    seen = []
    app.on_configure.connect(lambda sender, **kwargs: seen.append(app.conf.task_serializer), weak=False)

    assert app.conf.task_serializer == "yaml"
    assert seen == ["yaml"]


def test_a_subclass_may_have_on_configure_as_a_method():
    class Mine(Celery):
        def on_configure(self):
            self.config_from_object({"task_serializer": "yaml"})

    with Mine("mine", set_as_current=False, fixups=[]) as app:
        assert app.conf.task_serializer == "yaml"


def test_many_threads_read_the_first_setting_and_it_is_loaded_once(app):
    loads, seen = [], []
    app.on_after_configure.connect(lambda sender, **kwargs: loads.append(1), weak=False)
    start = threading.Barrier(8)

    def read():
        start.wait()
        seen.append(app.conf.task_serializer)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (loads, seen) == ([1], ["json"] * 8)


def test_a_second_source_takes_the_place_of_the_first(app):
    app.config_from_object({"task_serializer": "yaml"})
    assert app.conf.task_serializer == "yaml"
    app.conf.task_protocol = 1
    app.config_from_object({"result_serializer": "yaml"})

    assert (app.conf.task_serializer, app.conf.result_serializer, app.conf.task_protocol) == ("json", "yaml", 1)


def test_the_environment_may_name_the_module(app, monkeypatch):
    monkeypatch.delenv("MY_CONFIG", raising=False)
    assert app.config_from_envvar("MY_CONFIG", silent=True) is False
    with pytest.raises(ImproperlyConfigured, match="MY_CONFIG is not set"):
        app.config_from_envvar("MY_CONFIG")
    monkeypatch.setenv("MY_CONFIG", f"{__name__}:Settings")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    app.config_from_envvar("MY_CONFIG", force=True)

    assert app.conf.task_serializer == "yaml"


class Settings:
    task_serializer = "yaml"


def test_the_command_line_stands_above_the_object(app):
    app.config_from_object({"worker_concurrency": 1})
    app.config_from_cmdline(["worker.concurrency=3", ".acks_late=true"], namespace="task")

    assert (app.conf.worker_concurrency, app.conf.task_acks_late) == (3, True)


def test_either_takes_what_is_given_before_the_setting(app):
    assert app.either("task_serializer", None, "x") == "x"
    assert app.either("task_serializer", None) == "json"


# -- time


def test_time_is_utc_by_default_and_follows_the_setting(app):
    assert app.uses_utc_timezone()
    assert app.now().utcoffset() == datetime.timedelta(0)
    app.conf.timezone = "Asia/Tokyo"

    assert not app.uses_utc_timezone()
    assert app.now().utcoffset() == datetime.timedelta(hours=9)


def test_an_unknown_zone_is_named(app):
    app.conf.timezone = "Europe/Atlantis"
    with pytest.raises(ImproperlyConfigured, match=r"`timezone`.*is 'Europe/Atlantis' \(from app.conf\)"):
        app.timezone


# -- periodic tasks


def test_periodic_tasks_become_entries_of_the_schedule(app):
    @app.task(shared=False, name="tick")
    def tick(x):
        pass

    def declare(sender, **kwargs):
        sender.add_periodic_task(10.0, tick.s(1), name="each ten", expires=3)

    app.on_after_configure.connect(declare, weak=False)

    assert app.conf.beat_schedule == {
        "each ten": {"schedule": 10.0, "task": "tick", "args": (1,), "kwargs": {}, "options": {"expires": 3}}
    }


def test_a_periodic_task_before_loading_waits_for_the_configuration(app):
    @app.task(shared=False, name="tock")
    def tock():
        pass

    app.config_from_object({"beat_schedule": {"mine": {}}})
    key = app.add_periodic_task(5, tock.s())

    assert key == repr(tock.s())
    assert {*app.conf.beat_schedule} == {"mine", key}


def test_schedules_of_two_apps_are_apart(app):
    @app.task(shared=False, name="tack")
    def tack():
        pass

    app.conf.finalize()
    app.add_periodic_task(5, tack.s(), name="tack")
    with Celery("other", set_as_current=False, fixups=[]) as other:
        assert other.conf.beat_schedule == {}
    assert {*app.conf.beat_schedule} == {"tack"}


# -- rooms


def test_bound_classes_know_their_app_and_keep_their_home(app):
    assert app.AsyncResult.app is app
    assert app.AsyncResult.__module__ == "celery.result"
    assert app.Task._app is app
    assert issubclass(app.Task, celery.Task)
    assert app.Task is app.Task


def test_classes_to_use_are_given_by_argument_or_attribute():
    class Log:
        def __init__(self, app):
            self.app = app

    class Mine(Celery):
        events_cls = Log

    with Mine("mine", log=Log, set_as_current=False, fixups=[]) as app:
        assert isinstance(app.log, Log)
        assert isinstance(app.events, Log)
        assert app.log is app.log


def test_queues_can_be_selected(app):
    app.conf.task_create_missing_queues = True
    app.select_queues(["a", "b"])

    assert {*app.amqp.queues.consume_from} == {"a", "b"}


def test_each_thread_has_its_backend_and_a_thread_safe_one_is_shared(app):
    def in_thread():
        found = []
        thread = threading.Thread(target=lambda: found.append(app.backend))
        thread.start()
        thread.join()
        return found[0]

    assert app.backend is app.backend
    assert in_thread() is not app.backend
    with Celery("safe", set_as_current=False, fixups=[], result_backend_thread_safe=True) as safe:
        app = safe
        shared = safe.backend
        assert in_thread() is shared


def test_a_backend_can_be_put_in(app):
    app.backend = backend = object()

    assert app.backend is backend


def test_ids_tell_threads_apart(app):
    found = []
    thread = threading.Thread(target=lambda: found.append((app.oid, app.thread_oid)))
    thread.start()
    thread.join()

    assert found[0][0] == app.oid
    assert found[0][1] != app.thread_oid == app.thread_oid


def test_the_bug_report_names_versions_and_no_secret(app):
    app.conf.broker_url = "memory://u:s3cret@h"
    report = app.bugreport()

    assert f"celery:{celery.VERSION_BANNER}" in report
    assert "transport:memory" in report
    assert "s3cret" not in report


def test_worker_main_wants_the_word_worker(app):
    with pytest.raises(ValueError, match="worker"):
        app.worker_main(["prog", "beat"])


# -- fixups


def test_a_fixup_gets_the_app():
    with Celery("test", set_as_current=False, fixups=[lambda app: ("fixed", app)]) as app:
        assert app._fixups == [("fixed", app)]


def test_a_fixup_that_is_not_there_is_told_and_left_out():
    with pytest.warns(FixupWarning, match="no_such_module"):
        Celery("test", set_as_current=False, fixups=["no_such_module:fixup"]).close()


# -- pickling


class Mine(Celery):
    def __reduce_keys__(self):
        return {**super().__reduce_keys__(), "changes": {"task_protocol": 1}}


class Old(Celery):
    def __reduce_args__(self):
        return super().__reduce_args__()


@pytest.mark.parametrize("kind", [Celery, Mine, Old])
def test_an_app_is_pickled_with_its_changes(kind):
    module = sys.modules.setdefault(__name__, sys.modules.get(__name__) or __import__("types").ModuleType(__name__))
    for each in (Mine, Old):
        setattr(module, each.__name__, each)
    with kind("pickled", set_as_current=False, fixups=[], broker="memory://") as app:
        app.conf.task_serializer = "yaml"
        with pickle.loads(pickle.dumps(app)) as restored:
            assert type(restored) is kind
            assert restored.main == "pickled"
            expected = (None, "json", 1) if kind is Mine else ("memory://", "yaml", 2)
            assert (restored.conf.broker_url, restored.conf.task_serializer, restored.conf.task_protocol) == expected


def test_objects_of_bound_classes_come_back_bound_to_the_current_app(current):
    restored = pickle.loads(pickle.dumps(current.AsyncResult("id-1")))

    assert restored.id == "id-1"
    assert restored.app is current


def test_tasks_come_back_by_name(current):
    @current.task(shared=False, name="by-name")
    def by_name():
        pass

    assert _unpickle_task("by-name") == by_name
    assert _unpickle_task_v2("by-name", "celery.states") == by_name


# -- forking


def test_a_forked_child_has_ids_and_pools_of_its_own(app):
    pool, oid, thread_oid = app.pool, app.oid, app.thread_oid
    told = []
    app.on_after_fork.connect(lambda sender, **kwargs: told.append(sender), weak=False)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            facts = (app.pool is not pool, app.oid != oid, app.thread_oid != thread_oid, told == [app])
            os.write(write, repr(facts).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert os.read(read, 100) == b"(True, True, True, True)"
    assert app.pool is pool
    assert told == []
    os.close(read)
    os.close(write)


# -- cost


def test_making_an_app_imports_no_heavy_room():
    out = python("""
        import sys
        from celery import Celery
        app = Celery("lean", broker="redis://localhost", backend="redis://localhost")
        @app.task
        def add(x, y): return x + y
        heavy = ["celery.canvas", "celery.result", "celery.app.amqp", "celery.app.settings", "celery.app.task",
                 "celery.utils.time", "kombu.connection", "kombu.transport", "kombu.entity", "kombu.serialization",
                 "billiard", "redis", "click", "importlib.metadata"]
        print([name for name in heavy if name in sys.modules])
    """)

    assert out == "[]"


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Celery("quiet", set_as_current=False).close()


def test_programs_run_for_the_app(app, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog", "report"])
    app.start()
    by_default = capsys.readouterr().out
    app.start(["report"])

    assert "transport:memory" in by_default
    assert capsys.readouterr().out == by_default

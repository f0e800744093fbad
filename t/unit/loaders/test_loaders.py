"""Loaders: configuration modules, task modules, the command line."""

from __future__ import annotations

import sys
import textwrap

import pytest

from celery import Celery, signals
from celery.exceptions import ImproperlyConfigured
from celery.loaders import get_loader_cls
from celery.loaders.app import AppLoader
from celery.loaders.base import BaseLoader, autodiscover_tasks, find_related_module
from celery.loaders.default import Loader
from celery.utils.imports import NotAPackage

FILES = {
    "ld_conf.py": "broker_url = 'redis://module//'\n\nclass Inner:\n    broker_url = 'redis://inner//'\n",
    "ld_fails.py": "x = 1\n\nundefined_name\n",
    "ld_syntax.py": "x = 1\nx ==== 2\n",
    "ld_imports.py": "import os\nimport ld_no_such\n",
    "ld_nested.py": "import ld_fails\n",
    "ld_pkg/__init__.py": "",
    "ld_pkg/tasks.py": "import ld_seen\n",
    "ld_pkg/apps.py": "class Config: pass\n",
    "ld_pkg/conf.py": "broker_url = 'redis://package//'\n",
    "ld_bare/__init__.py": "",
    "ld_bad/__init__.py": "",
    "ld_bad/tasks.py": "import ld_no_such\n",
    "ld_seen.py": "",
    "ld_plain.py": "",
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CELERY_CONFIG_MODULE", raising=False)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("ld_") or name == "celeryconfig"]:
        del sys.modules[name]


@pytest.fixture
def app():
    with Celery("test", set_as_current=False, fixups=[]) as app:
        yield app


def test_loaders_have_short_names():
    assert get_loader_cls("app") is AppLoader
    assert get_loader_cls("default") is Loader
    assert get_loader_cls("celery.loaders.default:Loader") is Loader
    assert get_loader_cls(AppLoader) is AppLoader


# -- configuration


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("ld_conf", "redis://module//"),
        ("ld_pkg.conf", "redis://package//"),
        ("ld_conf:Inner", "redis://inner//"),
        ("ld_conf.Inner", "redis://inner//"),
        ({"broker_url": "redis://mapping//"}, "redis://mapping//"),
    ],
)
def test_a_configuration_is_an_object_or_its_name(app, source, url):
    app.config_from_object(source)

    assert app.conf.broker_url == url


def test_a_module_is_imported_when_the_first_setting_is_read(app):
    app.config_from_object("ld_conf")
    assert "ld_conf" not in sys.modules
    app.conf.broker_url

    assert "ld_conf" in sys.modules


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("ld_nosuch", ModuleNotFoundError, "No module 'ld_nosuch' for the configuration 'ld_nosuch'"),
        ("ld_pkg.nosuch", ImportError, "Module 'ld_pkg' has no 'nosuch', for the configuration 'ld_pkg.nosuch'."),
        ("ld_conf:Nope", ImportError, "Module 'ld_conf' has no 'Nope', for the configuration 'ld_conf:Nope'."),
        ("ld_imports", ModuleNotFoundError, "ld_imports.py line 2 failed on import: No module named 'ld_no_such'"),
        (
            "ld_fails",
            ImproperlyConfigured,
            "ld_fails.py line 3 failed on import: NameError: name 'undefined_name' is not",
        ),
        ("ld_nested", ImproperlyConfigured, "ld_fails.py line 3 failed on import: NameError"),
        ("ld_syntax", ImproperlyConfigured, "ld_syntax.py line 2 failed on import: SyntaxError"),
        (
            "ld_conf.py",
            NotAPackage,
            "The configuration is a module, not a file: write 'ld_conf' in place of 'ld_conf.py'.",
        ),
    ],
)
def test_a_bad_configuration_module_is_told_in_one_line(app, name, error, told):
    app.config_from_object(name)
    with pytest.raises(error) as caught:
        app.conf.broker_url

    assert str(caught.value).startswith(told)


def test_a_missing_module_may_be_passed_over(app):
    app.config_from_object("ld_nosuch", silent=True)

    assert app.conf.broker_url is None


@pytest.mark.parametrize("loader", ["app", "default"])
def test_the_environment_names_a_module(loader, monkeypatch):
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "ld_conf")
    with Celery("test", set_as_current=False, fixups=[], loader=loader) as app:
        assert app.conf.broker_url == "redis://module//"


def test_the_default_loader_reads_celeryconfig(project):
    with Celery("test", set_as_current=False, fixups=[], loader="default") as app:
        assert app.conf.broker_url is None
        assert not app.loader.configured
    (project / "celeryconfig.py").write_text("broker_url = 'redis://default//'\n")
    with Celery("test", set_as_current=False, fixups=[], loader="default") as app:
        assert app.conf.broker_url == "redis://default//"
        assert app.loader.configured
    with Celery("test", set_as_current=False, fixups=[]) as app:
        assert app.conf.broker_url is None


def test_a_celeryconfig_that_fails_is_not_passed_over(project, app):
    (project / "celeryconfig.py").write_text("import ld_no_such\n")
    with pytest.raises(ModuleNotFoundError, match=r"celeryconfig\.py line 1"):
        Loader(app).read_configuration()
    monkeyed = {"x": 1}
    assert Loader(app).setup_settings(monkeyed).obj is monkeyed


def test_a_missing_celeryconfig_is_told_on_request(app, monkeypatch):
    from celery.exceptions import NotConfigured

    with pytest.raises(ModuleNotFoundError):
        Loader(app).read_configuration(fail_silently=False)
    monkeypatch.setenv("C_WNOCONF", "1")
    with pytest.warns(NotConfigured, match="celeryconfig"):
        Loader(app).read_configuration()


def test_without_a_celeryconfig_nothing_is_set(project):
    with Celery("test", set_as_current=False, fixups=[], loader="default") as app:
        assert app.conf.table() == {}


def test_backends_may_be_overridden_by_the_configuration(app):
    app.config_from_object({"override_backends": {"mine": "m:Mine"}})
    app.conf.finalize()

    assert app.loader.override_backends == {"mine": "m:Mine"}


# -- the command line


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("worker.concurrency=3", {"worker_concurrency": "3"}),
        ("task.serializer=yaml", {"task_serializer": "yaml"}),
        ("task_serializer=yaml", {"task_serializer": "yaml"}),
        ("task.acks_late=yes", {"task_acks_late": True}),
        ("result.expires=3", {"result_expires": 3.0}),
        ("broker.url=redis://h?a=b", {"broker_url": "redis://h?a=b"}),
        ('broker.transport_options={"a": 1}', {"broker_transport_options": {"a": 1}}),
        ('accept_content=["json"]', {"accept_content": ["json"]}),
        ("timezone=UTC", {"timezone": "UTC"}),
        ("my.own=(int)3", {"my_own": 3}),
        ('my.own=(json)["a"]', {"my_own": ["a"]}),
    ],
)
def test_words_become_settings(app, word, setting):
    assert app.loader.cmdline_config_parser([word]) == setting


@pytest.mark.parametrize("word", [".concurrency=3", "concurrency=3"])
def test_a_namespace_shortens_names(app, word):
    assert app.loader.cmdline_config_parser([word], namespace="worker") == {"worker_concurrency": "3"}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("worker.concurrency", "A setting on the command line is `name=value`"),
        ("broker.pool_limit=abc", "'broker_pool_limit': 'abc' is no int"),
        ("my.own=3", "Unknown setting 'my_own'"),
        ("my.own=(thing)3", "there is no type 'thing'"),
    ],
)
def test_a_bad_word_is_told(app, word, told):
    with pytest.raises(ValueError) as caught:
        app.loader.cmdline_config_parser([word])

    assert told in str(caught.value)


# -- task modules


@pytest.mark.parametrize(
    ("package", "related", "found"),
    [
        ("ld_pkg", "tasks", "ld_pkg.tasks"),
        ("ld_pkg", "nope", None),
        ("ld_pkg", None, "ld_pkg"),
        ("ld_pkg.apps.Config", "tasks", None),
        ("ld_plain", "tasks", None),
        ("ld_pkg.tasks", None, "ld_pkg.tasks"),
        ("ld_pkg.nosuch", "tasks", "ld_pkg.tasks"),
    ],
)
def test_the_related_module_of_a_package(package, related, found):
    module = find_related_module(package, related)

    assert (module and module.__name__) == found


@pytest.mark.parametrize(("package", "related"), [("ld_nosuch", "tasks"), ("ld_nosuch", None), ("ld_bad", "tasks")])
def test_what_cannot_be_imported_is_an_error(package, related):
    with pytest.raises(ModuleNotFoundError):
        find_related_module(package, related)


def test_discovery_inside_of_discovery_does_nothing(monkeypatch):
    monkeypatch.setattr("celery.loaders.base._is_discovering", True)

    assert autodiscover_tasks(["ld_pkg"]) == []


def test_discovery_waits_for_the_signal(app):
    app.autodiscover_tasks(["ld_pkg", "ld_bare"])
    assert "ld_pkg.tasks" not in sys.modules
    app.loader.import_default_modules()

    assert "ld_seen" in sys.modules
    assert app.loader.task_modules == {"ld_pkg.tasks"}


def test_discovery_can_be_forced_and_take_a_function(app):
    app.autodiscover_tasks(lambda: ["ld_pkg"], related_name="apps", force=True)

    assert app.loader.task_modules == {"ld_pkg.apps"}


def test_without_packages_fixups_are_asked():
    class Fixup:
        def autodiscover_tasks(self):
            return ["ld_pkg"]

    with Celery("test", set_as_current=False, fixups=[lambda app: Fixup(), lambda app: object()]) as app:
        app.autodiscover_tasks(force=True)

        assert app.loader.task_modules == {"ld_pkg.tasks"}


def test_imports_and_include_are_imported_from_the_working_directory(app):
    app.conf.update(imports=("ld_plain",), include="ld_seen")

    assert app.loader.default_modules == ("ld_plain", "ld_seen")
    assert [module.__name__ for module in app.loader.import_default_modules()] == ["ld_plain", "ld_seen"]
    assert app.loader.task_modules == {"ld_plain", "ld_seen"}


def test_an_error_in_a_receiver_of_import_modules_is_raised(app):
    def fails(**kwargs):
        raise KeyError("from receiver")

    signals.import_modules.connect(fails, sender=app, weak=False)
    with pytest.raises(KeyError, match="from receiver"):
        app.loader.import_default_modules()


def test_hooks_are_called_in_a_workers_life(app):
    calls = []

    class Mine(BaseLoader):
        def on_worker_init(self):
            calls.append("init")

        def on_worker_process_init(self):
            calls.append("process")

        def on_worker_shutdown(self):
            calls.append("shutdown")

    loader = Mine(app)
    loader.init_worker()
    loader.init_worker()
    loader.init_worker_process()
    loader.shutdown_worker()

    assert calls == ["init", "process", "shutdown"]
    assert loader.now().utcoffset() is not None
    assert loader.now(utc=False).tzinfo is None
    assert loader.find_module("ld_plain").__name__ == "ld_plain"

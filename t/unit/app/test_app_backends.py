"""Finding result backends by name and by URL."""

from __future__ import annotations

import pytest

from celery import Celery
from celery.app import backends
from celery.backends.base import DisabledBackend
from celery.exceptions import ImproperlyConfigured


class Mine:
    pass


@pytest.fixture
def loader():
    with Celery("test", set_as_current=False, fixups=[]) as app:
        yield app.loader


@pytest.fixture
def module(monkeypatch):
    import sys
    import types

    module = types.ModuleType("my_backends")
    module.Mine = Mine
    monkeypatch.setitem(sys.modules, "my_backends", module)


def test_without_a_name_results_are_disabled(loader):
    assert backends.by_name(None, loader) is backends.by_name("disabled", loader) is DisabledBackend
    assert backends.by_url(None, loader) == (DisabledBackend, None)


@pytest.mark.parametrize("path", ["my_backends:Mine", "my_backends.Mine"])
def test_a_dotted_path_is_a_backend(loader, module, path):
    assert backends.by_name(path, loader) is Mine


def test_a_class_is_taken_as_it_is(loader):
    assert backends.by_name(Mine, loader) is Mine


def test_the_loader_may_add_aliases(loader, module):
    loader.override_backends = {"mine": "my_backends:Mine"}

    assert backends.by_name("mine", loader) is Mine
    assert backends.by_url("mine://host", loader) == (Mine, "mine://host")


def test_packages_add_aliases_by_entry_points(loader, module, monkeypatch):
    monkeypatch.setattr(backends, "load_extension_class_names", lambda group: [("theirs", "my_backends:Mine")])

    assert backends.by_name("theirs", loader) is Mine


def test_a_class_of_ones_own_may_stand_for_a_store_that_this_version_has_not(loader, module):
    loader.override_backends = {"mongodb": "my_backends:Mine"}

    assert backends.by_name("mongodb", loader) is Mine


def test_a_plus_parts_the_backend_from_its_url(loader, module):
    loader.override_backends = {"mine": "my_backends:Mine"}

    assert backends.by_url("mine+sqlite:///x", loader) == (Mine, "sqlite:///x")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nosuch", "Unknown result backend `nosuch`. Known: cache, "),
        ("mongodb", "This version has no result backend `mongodb`. It has cache, database, "),
        ("reddis", "Unknown result backend `reddis`. Did you mean `redis"),
        ("os.path", "Unknown result backend `os.path`: that is a module"),
        ("no_such.module:X", "The result backend `no_such.module:X` cannot be loaded from no_such.module:X: No module"),
        ("my_backends:Nope", "The result backend `my_backends:Nope` cannot be loaded"),
    ],
)
def test_what_is_not_there_is_told(loader, module, name, told):
    with pytest.raises(ImproperlyConfigured) as caught:
        backends.by_name(name, loader)

    assert str(caught.value).startswith(told)

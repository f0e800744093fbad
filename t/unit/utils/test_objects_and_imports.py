import json
import sys
from types import SimpleNamespace

import pytest

import celery.utils
from celery.utils import imports
from celery.utils.imports import (
    NotAPackage,
    cwd_in_path,
    find_module,
    gen_task_name,
    import_from_cwd,
    instantiate,
    load_extension_class_names,
    load_extension_classes,
    module_file,
    qualname,
    reload_from_cwd,
)
from celery.utils.objects import Bunch, FallbackContext, getitem_property, mro_lookup


class Options(dict):
    priority = getitem_property("options.priority", "How urgent it is.")
    id = getitem_property("id")


def test_properties_live_in_the_mapping():
    options = Options(id=1, options={"priority": 3})
    options.priority = 9
    options.id = 2
    assert options == {"id": 2, "options": {"priority": 9}}
    assert (options.priority, options.id, Options().id, Options.priority) == (9, 2, None, Options)
    assert vars(Options)["priority"].__doc__ == "How urgent it is."
    with pytest.raises(KeyError):
        Options().priority


class Base:
    def overridden(self):
        pass


class Derived(Base):
    pass


def test_the_class_that_defines_an_attribute_is_found():
    assert mro_lookup(Derived, "overridden") is Base
    assert mro_lookup(Derived, "nope") is None
    assert mro_lookup(Derived, "overridden", stop={Base}) is None
    assert mro_lookup(Derived, "overridden", stop={Base}, monkey_patched=["elsewhere"]) is Base
    assert mro_lookup(Derived, "overridden", stop={Base}, monkey_patched=[__name__]) is None


def test_a_given_context_is_left_open_and_a_made_one_is_closed():
    log = []

    class Resource:
        def __enter__(self):
            log.append("enter")
            return self

        def __exit__(self, *exc_info):
            log.append("exit")

    given = Resource()
    with FallbackContext(given, Resource) as resource:
        assert resource is given
    assert log == []
    with FallbackContext(None, Resource) as resource:
        assert isinstance(resource, Resource)
    assert log == ["enter", "exit"]


def test_a_bunch_has_what_it_is_given():
    assert Bunch(a=1).a == 1


# -- imports


@pytest.mark.parametrize(
    ("obj", "name"),
    [
        (Base, f"{__name__}.Base"),
        (Base(), f"{__name__}.Base"),
        (dict, "builtins.dict"),
        (qualname, "celery.utils.imports.qualname"),
        (sys, "sys"),
    ],
)
def test_things_have_full_names(obj, name):
    assert qualname(obj) == name


def test_classes_are_called_by_name():
    assert instantiate("collections:Counter", "aab")["a"] == 2
    assert instantiate(dict, a=1) == {"a": 1}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_of_mine.py").write_text("value = 1\n")
    yield tmp_path
    sys.modules.pop("module_of_mine", None)


def test_modules_are_found_in_the_working_directory(here, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(here))])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = import_from_cwd("module_of_mine")
    assert module.value == 1
    assert module_file(module) == str(here / "module_of_mine.py")
    assert find_module("module_of_mine") is module
    (here / "module_of_mine.py").write_text("value = 22\n")
    assert reload_from_cwd(module).value == 22
    assert str(here) not in sys.path


def test_the_path_is_left_as_it_was_found(here):
    before = list(sys.path)
    with cwd_in_path():
        assert sys.path[0] == str(here)
        with cwd_in_path():
            assert sys.path.count(str(here)) == 1
    assert sys.path == before


def test_a_directory_that_is_gone_is_passed_over(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with cwd_in_path():
        assert find_module("json").loads


def test_modules_have_no_submodules():
    with pytest.raises(NotAPackage, match="string"):
        find_module("string.nope")
    with pytest.raises(ModuleNotFoundError):
        find_module("json.nope")
    with pytest.raises(ModuleNotFoundError):
        find_module("nope")


@pytest.mark.parametrize(
    ("main", "module", "name"),
    [
        ("proj", "__main__", "proj.add"),
        (None, "__main__", "__main__.add"),
        ("proj", "pkg.tasks", "pkg.tasks.add"),
        ("proj", "json.decoder", "json.decoder.add"),
    ],
)
def test_tasks_are_named_after_module_and_function(main, module, name):
    assert gen_task_name(SimpleNamespace(main=main), "add", module) == name


def test_the_main_file_of_a_worker_is_called_main(monkeypatch):
    monkeypatch.setattr(imports, "MP_MAIN_FILE", sys.modules["json"].__file__)
    assert gen_task_name(SimpleNamespace(main="proj"), "add", "json") == "proj.add"


def test_extensions_are_named_by_entry_points(tmp_path, monkeypatch):
    package = tmp_path / "extension-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: extension\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[celery.of.a.test]\ndecoder = json:JSONDecoder\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(load_extension_class_names("celery.of.a.test")) == [("decoder", "json:JSONDecoder")]
    assert dict(load_extension_classes("celery.of.a.test")) == {"decoder": json.JSONDecoder}
    assert not list(load_extension_classes("no.such.group"))


def test_an_extension_that_cannot_be_imported_is_told(monkeypatch):
    monkeypatch.setattr(imports, "load_extension_class_names", lambda namespace: [("bad", "no.such:Class")])
    with pytest.warns(UserWarning, match="no.such:Class"):
        assert list(load_extension_classes("group")) == []


def test_the_door_hands_names_on():
    assert celery.utils.get_full_cls_name is qualname
    assert all(getattr(celery.utils, name) for name in celery.utils.__all__)
    assert celery.utils.gen_unique_id is celery.utils.uuid
    with pytest.raises(AttributeError):
        celery.utils.nope
    with pytest.raises(AttributeError):
        imports.nope

"""Finding the app that a name means."""

from __future__ import annotations

import sys

import pytest

from celery import Celery
from celery.app.utils import appstr, find_app

FILES = {
    "fa_pkg/__init__.py": "",
    "fa_pkg/celery.py": "from celery import Celery\nmyapp = Celery('in package', set_as_current=False)\n",
    "fa_empty/__init__.py": "",
    "fa_two.py": "from celery import Celery\none = Celery('one', set_as_current=False)\ntwo = Celery('two', set_as_current=False)\n",
    "fa_named.py": "from celery import Celery\nother = Celery('other', set_as_current=False)\napp = Celery('app', set_as_current=False)\n",
    "fa_web.py": "from celery import Celery\napp = object()\ncelery = Celery('of the web', set_as_current=False)\n",
    "fa_import.py": "import celery\nx = celery.Celery('x', set_as_current=False)\n",
    "fa_none.py": "",
    "fa_broken.py": "import fa_no_such_module\n",
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("fa_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("path", "main"),
    [
        ("fa_pkg", "in package"),
        ("fa_pkg.celery", "in package"),
        ("fa_pkg.celery:myapp", "in package"),
        ("fa_two", "one"),
        ("fa_two:two", "two"),
        ("fa_two.two", "two"),
        ("fa_named", "app"),
        ("fa_import", "x"),
        ("fa_web", "of the web"),
    ],
)
def test_a_name_means_an_app(path, main):
    assert find_app(path).main == main


@pytest.mark.parametrize(
    ("path", "error", "told"),
    [
        ("fa_nosuch", ModuleNotFoundError, "No module named 'fa_nosuch'"),
        ("fa_two:nope", AttributeError, "Module `fa_two` has no `nope`; it has apps: `one`, `two`."),
        ("fa_pkg.nope", AttributeError, "Module `fa_pkg` has no `nope`; and there is no app in it."),
        ("fa_none", AttributeError, "Module `fa_none` has no app: give one as `fa_none:NAME`"),
        ("fa_empty", AttributeError, "Module `fa_empty` has no app"),
        ("fa_broken", ModuleNotFoundError, "No module named 'fa_no_such_module'"),
    ],
)
def test_what_is_not_there_is_told(path, error, told):
    with pytest.raises(error) as caught:
        find_app(path)

    assert str(caught.value).startswith(told)


def test_an_app_is_itself():
    with Celery("itself", set_as_current=False, fixups=[]) as app:
        assert find_app(app) is app
        assert appstr(app) == f"itself at {id(app):#x}"

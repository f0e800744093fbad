import importlib
import subprocess
import sys

import pytest

import celery


def modules_after(code):
    """Return the packages that are there after ``code`` ran in a new interpreter."""
    program = f"import sys; {code}; print(*(m for m in sys.modules if m.startswith(('celery', 'kombu', 'billiard'))))"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True).split())


OLD = {"celery.execute", "celery.log", "celery.messaging", "celery.registry"}


def test_importing_states_imports_the_front_door_and_nothing_else():
    assert modules_after("import celery.states") == {"celery", "celery.states", *OLD}


def test_signals_and_the_current_app_need_no_kombu():
    assert not {name for name in modules_after("import celery.signals, celery._state") if name.startswith("kombu")}


def test_every_name_resolves():
    for name in celery.__all__:
        assert getattr(celery, name, None) is not None or name == "current_task", name
        assert name in dir(celery)


def test_unknown_names_are_told():
    with pytest.raises(AttributeError, match="nope"):
        celery.nope
    with pytest.raises(ImportError):
        from celery import nope  # noqa: F401


def test_the_version_compares_as_upstream_s():
    assert (5, 6) < celery.VERSION[:2] < (5, 8)
    assert celery.__version__.startswith("5.7.0")
    assert celery.version_info is celery.VERSION
    assert celery.__version__ in celery.VERSION_BANNER


@pytest.mark.parametrize(
    ("module", "name"),
    [("registry", "tasks"), ("execute", "send_task"), ("log", "get_default_logger"), ("messaging", "TaskConsumer")],
)
def test_modules_of_old_are_found_as_attributes_and_by_import(module, name):
    assert getattr(getattr(celery, module), name) is not None
    assert getattr(importlib.import_module(f"celery.{module}"), name) is not None


@pytest.mark.parametrize(
    ("argv", "patched"),
    [
        (["celery", "worker", "-P", "gevent"], "gevent"),
        (["celery", "worker", "-Pgevent"], "gevent"),
        (["celery", "worker", "--pool=gevent"], "gevent"),
        (["celery", "worker", "--pool", "eventlet"], "eventlet"),
        (["celery", "worker", "-P", "prefork"], None),
        (["celery", "worker", "-P"], None),
        (["celery", "worker", "--poolish=gevent"], None),
        (["celery"], None),
    ],
)
def test_the_pool_chosen_on_the_command_line_is_patched_for(argv, patched):
    calls = []
    patches = {name: lambda name=name: calls.append(name) for name in ("gevent", "eventlet")}
    celery.maybe_patch_concurrency(argv, patches=patches)
    assert calls == ([patched] if patched else [])


def test_green_pools_patch_before_anything_is_imported():
    pytest.importorskip("gevent")
    code = "import celery, socket, gevent.socket as g; celery.maybe_patch_concurrency(['x', '-P', 'gevent']); "
    program = code + "print(socket.socket is g.socket)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "True"


def test_a_pool_whose_package_is_missing_ends_with_one_line():
    code = (
        "import sys; sys.modules['gevent'] = None; sys.argv = ['celery', 'worker', '-P', 'gevent'];"
        "from celery.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: this pool needs gevent")
    assert "Traceback" not in done.stderr

"""Fixtures for the tests of users' projects: ``pytest_plugins = ["celery.contrib.pytest"]`` in ``conftest.py``.

What a project changes it does by overriding a fixture: ``celery_config``, ``celery_parameters``, ``celery_includes``...
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from celery import _state
from celery.contrib.testing.app import TestApp, setup_default_app

if TYPE_CHECKING:
    from celery import Celery

#: set in the environment, no worker is started: the project's own one is used
NO_WORKER = os.environ.get("NO_WORKER")


def pytest_configure(config: Any) -> None:
    """Register the mark ``celery(**settings)``."""
    config.addinivalue_line("markers", "celery(**overrides): override celery configuration for a test case")


@contextmanager
def _test_app(
    request: Any, config: Mapping[str, Any], parameters: Mapping[str, Any], enable_logging: bool, use_trap: bool
) -> Iterator[Celery]:
    mark = request.node.get_closest_marker("celery")
    config = {**config, **(mark.kwargs if mark else {})}
    app = TestApp(set_as_current=False, enable_logging=enable_logging, config=config, **parameters)
    with setup_default_app(app, use_trap=use_trap):
        yield app
    _state._deregister_app(app)  # shared tasks of later tests are none of its


# -- what projects override


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Whether using the current app is an error."""
    return False


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Settings of the app."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """Arguments of the app."""
    return {}


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Whether the app sets up logging."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Modules that the worker imports."""
    return ()


@pytest.fixture(scope="session")
def celery_class_tasks() -> list[Any]:
    """Tasks made of classes, to be registered."""
    return []


@pytest.fixture(scope="session")
def celery_worker_pool() -> Any:
    """The pool of the worker."""
    return "solo"


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """Arguments of the worker."""
    return {}


# -- what tests use


@pytest.fixture(scope="session")
def celery_session_app(
    request: Any,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Celery]:
    """An app for the whole session."""
    with _test_app(request, celery_config, celery_parameters, celery_enable_logging, use_celery_app_trap) as app:
        if not use_celery_app_trap:
            app.set_default()
            app.set_current()
        yield app


@pytest.fixture(scope="session")
def celery_session_worker(
    request: Any,
    celery_session_app: Celery,
    celery_includes: Sequence[str],
    celery_class_tasks: list[Any],
    celery_worker_pool: Any,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[Any]:
    """A worker for the whole session."""
    for task in celery_class_tasks:
        celery_session_app.register_task(task)
    with _worker(celery_session_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def celery_app(
    request: Any,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Celery]:
    """An app for one test; the mark ``celery`` overrides its settings."""
    with _test_app(request, celery_config, celery_parameters, celery_enable_logging, use_celery_app_trap) as app:
        yield app


@pytest.fixture
def celery_worker(
    request: Any,
    celery_app: Celery,
    celery_includes: Sequence[str],
    celery_worker_pool: Any,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[Any]:
    """A worker for one test."""
    with _worker(celery_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def celery_inprocess_worker(celery_app: Celery) -> Iterator[Any]:
    """A worker without threads, whose clock the test turns: `celery.contrib.testing.inprocess`."""
    from celery.contrib.testing.inprocess import InProcessWorker

    with InProcessWorker(celery_app) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: Celery) -> None:
    """Make the app of the test the current one, where the trap is set."""
    celery_app.set_current()


@contextmanager
def _worker(app: Any, includes: Sequence[str], pool: Any, parameters: Mapping[str, Any]) -> Iterator[Any]:
    if NO_WORKER:
        yield None
        return
    from celery.contrib.testing import worker

    for module in includes:
        app.loader.import_task_module(module)
    with worker.start_worker(app, pool=pool, **parameters) as running:
        yield running

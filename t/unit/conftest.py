"""What every unit test starts from: an in-memory broker and an in-memory store with nothing in them."""

import logging
import os

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine everything may be slow; that is no property of what is tested.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

#: Loggers that a program sets up, or a worker in a test.
LOGGERS = [logging.getLogger(name) for name in ("", "celery", "celery.task", "celery.redirected")]


@pytest.fixture(autouse=True)
def _own_logging():
    """Leave logging as it was: a worker in a test sets it up as a program does, and other tests would hear less."""
    from celery.app.log import Logging
    from celery.utils.log import ColorFormatter

    before = [(logger, logger.level, logger.propagate, logger.handlers[:]) for logger in LOGGERS]
    environment = _log_environment()
    yield
    Logging._setup = False
    for logger, level, propagate, handlers in before:
        logger.setLevel(level)
        logger.propagate = propagate
        for handler in logger.handlers[:]:
            if handler not in handlers and isinstance(handler.formatter, ColorFormatter):
                logger.removeHandler(handler)
                handler.close()
    for name in _log_environment():
        del os.environ[name]
    os.environ.update(environment)


def _log_environment():
    """Return how a program tells the processes that it starts of its log."""
    return {name: value for name, value in os.environ.items() if name.startswith(("CELERY_LOG_", "_MP_FORK_LOG"))}


@pytest.fixture(autouse=True)
def _own_shared_tasks():
    """Forget the shared tasks that a test declared: every app made later would get them."""
    import celery.app.builtins  # noqa: F401  # declares what every app has
    from celery import _state

    before = dict(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(before)


@pytest.fixture(autouse=True)
def _own_current_app():
    """Leave the current app as it was: shared tasks are looked up in it, and one that is closed gets no new ones."""
    from celery import _state

    before = _state._tls.current_app, _state.default_app
    yield
    _state._tls.current_app, _state.default_app = before


@pytest.fixture(autouse=True)
def _empty_memory():
    """Forget what a test left in kombu's in-memory transport and in our store; both belong to the whole process."""
    yield
    from kombu.transport.memory import Channel, Transport

    from celery.backends.cache import DummyClient

    DummyClient().cache.clear()
    Channel.queues.clear()
    Channel.events.clear()
    Transport.global_state.clear()

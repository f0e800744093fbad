"""What every unit test starts from: an in-memory broker and an in-memory store with nothing in them."""

import logging

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine everything may be slow; that is no property of what is tested.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(autouse=True)
def _own_log_level():
    """Leave the level of the root logger as it was: a worker in a test sets it, and other tests would see less."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


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
def _empty_memory():
    """Forget what a test left in kombu's in-memory transport and in our store; both belong to the whole process."""
    yield
    from kombu.transport.memory import Channel, Transport

    from celery.backends.cache import DummyClient

    DummyClient().cache.clear()
    Channel.queues.clear()
    Channel.events.clear()
    Transport.global_state.clear()

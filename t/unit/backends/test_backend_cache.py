"""Results in memcached and in memory."""

from __future__ import annotations

import time

import pytest

from celery import Celery
from celery.backends.cache import CacheBackend, DummyClient, backends, get_best_memcache
from celery.exceptions import BackendStoreError, ImproperlyConfigured


class Client:
    """What a memcached client is told."""

    def __init__(self, servers, **options):
        self.servers, self.options, self.calls = servers, options, []
        self.answer = True

    def get(self, key):
        return None

    def set(self, key, value, expires):
        self.calls.append(("set", key, expires))
        return self.answer

    def touch(self, key, expires):
        self.calls.append(("touch", key, expires))


@pytest.fixture
def make(monkeypatch):
    made = []

    def make(url, **conf):
        app = Celery("cache", broker="memory://", backend=url, set_as_current=False)
        app.conf.update(conf)
        made.append(app)
        return app

    monkeypatch.setitem(
        backends, "memcached", lambda: (Client, lambda key: key.decode() if isinstance(key, bytes) else key)
    )
    yield make
    for app in made:
        app.close()


def test_the_url_names_the_servers(make):
    backend = make("cache+memcached://one:1;two:2/", cache_backend_options={"binary": True}).backend

    assert backend.client.servers == ["one:1", "two:2"]
    assert backend.client.options == {"binary": True}
    assert backend.as_uri() == "memcached://one:1;two:2/"
    assert backend.get_key_for_task("t") == "celery-task-meta-t"


def test_the_scheme_may_stand_in_a_setting(make):
    backend = make("cache", cache_backend="memory").backend

    assert isinstance(backend.client, DummyClient)


def test_an_unknown_cache_is_refused_with_those_that_exist(make):
    with pytest.raises(ImproperlyConfigured, match=r"`nosuch`.*memcached.*memory"):
        make("cache+nosuch://x").backend


@pytest.mark.parametrize("days", [1, 30])
def test_lifetimes_are_seconds(make, days):
    backend = make("cache+memcached://h", result_expires=days * 86400).backend
    backend.set("k", "v")

    assert backend.client.calls == [("set", "k", days * 86400)]


def test_longer_lifetimes_are_points_in_time_as_memcached_wants_them(make):
    backend = make("cache+memcached://h", result_expires=31 * 86400).backend
    backend.set("k", "v")

    assert abs(backend.client.calls[0][2] - time.time() - 31 * 86400) < 5


def test_what_memcached_does_not_take_is_an_error(make):
    backend = make("cache+memcached://h").backend
    backend.client.answer = False

    with pytest.raises(BackendStoreError, match="celery-task-meta-t"):
        backend.store_result("t", 1, "SUCCESS")


def test_each_thread_has_a_client_of_its_own(make):
    import threading

    backend = make("cache+memcached://h").backend
    other = []
    thread = threading.Thread(target=lambda: other.append(backend.client))
    thread.start()
    thread.join()

    assert other[0] is not backend.client
    assert backend.client is backend.client


def test_memory_is_one_for_the_process():
    one, two = DummyClient(), DummyClient()
    one.set("test-key", 1)

    assert two.get("test-key") == 1
    assert two.incr("test-key") == 2
    assert int(one.get_multi(["test-key", "nothing"])["test-key"]) == 2
    two.delete("test-key")
    two.delete("test-key")
    assert one.get("test-key") is None
    one.touch("test-key", 3)


def test_counting_what_is_not_there_counts_nothing(make):
    assert make("cache+memory://").backend.incr(b"no-such-key") is None


@pytest.mark.parametrize("module", ["pylibmc", "memcache"])
def test_either_client_library_will_do(module, monkeypatch):
    import sys

    pytest.importorskip(module)
    monkeypatch.setitem(sys.modules, {"pylibmc": "memcache", "memcache": "pylibmc"}[module], None)
    client = get_best_memcache(["127.0.0.1:1"], behaviors={"tcp_nodelay": True})

    assert type(client).__module__.startswith(module)


def test_without_a_client_library_it_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pylibmc", None)
    monkeypatch.setitem(sys.modules, "memcache", None)
    with pytest.raises(ImproperlyConfigured, match="pip install"):
        get_best_memcache()


def test_the_class_needs_no_url(make):
    app = make("cache+memory://")

    assert CacheBackend(app, backend="memory://").backend == "memory"

"""The examples for web frameworks: a request, a task, its result, as their READMEs tell."""

from __future__ import annotations

import os

import pytest

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "")

WORKER = ("worker", "--loglevel", "INFO", "--concurrency", "1")


@pytest.fixture
def database(request, tmp_path):
    """A database of the test's own, as the URL that the Django example takes."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shop.sqlite"
        return
    psycopg2 = pytest.importorskip("psycopg2")
    if not POSTGRES:
        pytest.skip("TEST_POSTGRES_URL is not set")
    name = f"shop_{os.getpid()}"
    connection = psycopg2.connect(POSTGRES)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(f"create database {name}")
    yield POSTGRES.rpartition("/")[0] + f"/{name}"
    cursor.execute(f"drop database {name} with (force)")
    connection.close()


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_a_django_shop_prices_orders_after_commit(open_site, database):
    shop = open_site("django")
    shop.environ["SHOP_DATABASE"] = database
    shop.run("manage.py", "migrate", "--verbosity", "0")
    log = shop.start("-m", "celery", "-A", "proj", *WORKER, until=" ready.")
    shop.serve("manage.py", "runserver", "--noreload", "{port}", until="Quit the server")

    assert shop.ask("/orders/", {"item": "pear", "count": 3}) == (201, {"id": 1})
    assert shop.ask("/orders/", {"item": "pear", "count": 3000})[0] == 400
    status, anvil = shop.ask("/orders/", {"item": "anvil", "count": 1})
    assert status == 201

    priced = shop.eventually(lambda: (answer := shop.ask("/orders/1/")[1])["state"] == "SUCCESS" and answer)
    assert priced == {"item": "pear", "total": "1.20", "open": True, "state": "SUCCESS", "result": "1.20"}
    path = f"/orders/{anvil['id']}/"
    refused = shop.eventually(lambda: (answer := shop.ask(path)[1])["state"] == "FAILURE" and answer)
    assert refused["total"] is None
    assert refused["result"] == {"exc_type": "KeyError", "exc_message": ["anvil"], "exc_module": "builtins"}
    # The order of 3,000 was rolled back, and its task with it.
    assert log.read_text().count("] received") == 2


def test_a_flask_application_gives_its_context_to_tasks(open_site):
    site = open_site("flask")
    site.start("-m", "celery", "-A", "app", *WORKER, until=" ready.")
    site.serve("-m", "flask", "--app", "app", "run", "--port", "{port}", until="Running on")

    status, answer = site.ask("/greetings", {"name": "Ada"})
    assert status == 202
    path = f"/greetings/{answer['id']}"
    done = site.eventually(lambda: (said := site.ask(path)[1])["state"] == "SUCCESS" and said)
    assert done == {"state": "SUCCESS", "result": "Hello, Ada"}

    path = f"/greetings/{site.ask('/greetings', {'name': ''})[1]['id']}"
    failed = site.eventually(lambda: (said := site.ask(path))[1]["state"] == "FAILURE" and said)
    assert failed == (500, {"state": "FAILURE", "error": "nobody to greet"})


def test_a_fastapi_application_sends_and_gets_models(open_site):
    site = open_site("fastapi")
    site.start("-m", "celery", "-A", "app", *WORKER, until=" ready.")
    site.serve("-m", "uvicorn", "app:api", "--port", "{port}", until="Uvicorn running")

    status, answer = site.ask("/bills", {"prices": {"pear": 0.5, "melon": 3}, "counts": {"pear": 4, "melon": 1}})
    assert status == 202
    assert site.ask(f"/bills/{answer['id']}?wait=30") == (200, {"total": 5.0, "pieces": 5})

    status, answer = site.ask("/bills", {"prices": {}, "counts": {"anvil": 1}})
    assert site.ask(f"/bills/{answer['id']}?wait=30") == (422, {"detail": "no price for 'anvil'"})
    assert site.ask("/bills/no-such-id")[0] == 404

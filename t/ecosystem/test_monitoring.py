"""Monitoring libraries, unmodified: each wraps our tasks, clients and signals, and knows which task runs."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

import pytest

REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")


class Library(NamedTuple):
    """What a project writes at its top, what its task asks the library, and what that says."""

    module: str
    setup: str
    question: str
    answer: object


LIBRARIES = {
    "sentry": Library(
        "sentry_sdk",
        "import sentry_sdk\nsentry_sdk.init('http://key@127.0.0.1:9/1', traces_sample_rate=1.0)",
        "sentry_sdk.get_current_scope().transaction.name",
        "watched.look",
    ),
    "opentelemetry": Library(
        "opentelemetry.instrumentation.celery",
        "from opentelemetry import trace\nfrom opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.instrumentation.celery import CeleryInstrumentor\n"
        "trace.set_tracer_provider(TracerProvider())\nCeleryInstrumentor().instrument()",
        "trace.get_current_span().name",
        "run/watched.look",
    ),
    "elastic": Library(
        "elasticapm",
        "import elasticapm\nfrom elasticapm.contrib import celery as wrapping\n"
        "client = elasticapm.Client(service_name='x', disable_send=True)\n"
        "wrapping.register_exception_tracking(client)\nwrapping.register_instrumentation(client)",
        "bool(elasticapm.get_trace_id())",
        True,
    ),
    "new relic": Library(
        "newrelic",
        "import newrelic.agent\nnewrelic.agent.initialize('newrelic.ini')",
        "newrelic.agent.current_transaction().name",
        "watched.look",
    ),
    "datadog": Library(
        "ddtrace",
        "import ddtrace\nddtrace.patch(celery=True)",
        "ddtrace.tracer.current_span().resource",
        "watched.look",
    ),
}

TASKS = f"""
from celery import Celery

app = Celery("watched", broker="{REDIS}/13", backend="{REDIS}/13")


@app.task
def look():
    return ANSWER


@app.task
def fail():
    raise ValueError("for the library to see")
"""

CLIENT = """
import json, watched
from celery import chain
values = [watched.look.delay().get(timeout=30), chain(watched.look.si(), watched.look.si())().get(timeout=30)]
error = watched.fail.delay().get(timeout=30, propagate=False)
print(json.dumps([values, repr(error)]))
"""

NEW_RELIC = "[newrelic]\nlicense_key = {}\napp_name = x\ndeveloper_mode = true\n".format("0" * 40)


@pytest.mark.parametrize("name", LIBRARIES)
def test_it_knows_the_task_that_runs(name, open_site):
    library = LIBRARIES[name]
    pytest.importorskip(library.module)
    site = open_site("flask")  # any directory will do
    site.environ |= {"DD_TRACE_STARTUP_LOGS": "0", "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "0", "DD_TRACE_ENABLED": "1"}
    (site.directory / "newrelic.ini").write_text(NEW_RELIC)
    (site.directory / "watched.py").write_text(library.setup + TASKS.replace("ANSWER", library.question))
    log = site.start("-m", "celery", "-A", "watched", "worker", "-c", "2", "-l", "INFO", until=" ready.")
    values, error = json.loads(site.run("-c", CLIENT).splitlines()[-1])
    assert values == [library.answer] * 2
    assert error == "ValueError('for the library to see')"
    process, _ = site.running[-1]
    process.terminate()
    assert process.wait(timeout=30) == 0
    tracebacks = log.read_text().count("Traceback")
    assert tracebacks == 1, log.read_text()

"""Old names of settings in a file, rewritten."""

from __future__ import annotations

import pytest

from celery.bin.upgrade import renamed

OLD = """\
CELERY_RESULT_BACKEND = "rpc://"
CELERYD_CONCURRENCY = 4  # as CELERY_RESULT_BACKEND
from x import BROKER_URL, CELERYD_POOL
MY_BROKER_URL = BROKER_URLS = 1
app.conf.update(CELERY_TASK_SERIALIZER='json')
"""


def test_old_names_become_new_ones_and_other_names_stay():
    assert renamed(OLD) == (
        'result_backend = "rpc://"\n'
        "worker_concurrency = 4  # as result_backend\n"
        "from x import broker_url, worker_pool\n"
        "MY_BROKER_URL = BROKER_URLS = 1\n"
        "app.conf.update(task_serializer='json')\n"
    )


def test_for_django_they_are_in_capitals_with_the_prefix():
    once = renamed(OLD, "CELERY_")
    assert once == (
        'CELERY_RESULT_BACKEND = "rpc://"\n'
        "CELERY_WORKER_CONCURRENCY = 4  # as CELERY_RESULT_BACKEND\n"
        "from x import CELERY_BROKER_URL, CELERY_WORKER_POOL\n"
        "MY_BROKER_URL = BROKER_URLS = 1\n"
        "app.conf.update(CELERY_TASK_SERIALIZER='json')\n"
    )
    assert renamed(once, "CELERY_") == once


@pytest.mark.parametrize("prefix", [None, "CELERY_"])
def test_what_has_new_names_does_not_change(prefix):
    new = renamed(OLD, prefix)
    assert renamed(new, prefix) == new

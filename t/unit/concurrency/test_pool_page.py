"""The progress page."""

from __future__ import annotations

import os

from celery.concurrency.processes.page import CLAIMED, RUNNING, STARTED_AT, WITHDRAWN, ProgressPage


def test_a_child_and_its_parent_see_the_same_page():
    page = ProgressPage()
    pid = os.fork()
    if pid == 0:
        page.counters[RUNNING] = 2**50
        page.times[STARTED_AT] = 1.5
        os._exit(0)
    os.waitpid(pid, 0)

    assert page.counters[RUNNING] == 2**50
    assert page.times[STARTED_AT] == 1.5
    page.close()


def test_a_page_on_a_file_can_be_mapped_again():
    page = ProgressPage.on_file()
    other = ProgressPage(os.dup(page.fd))
    page.counters[WITHDRAWN] = 7

    assert other.counters[WITHDRAWN] == 7
    page.close()
    other.close()


def test_what_each_side_writes_is_on_a_cache_line_of_its_own():
    child, parent = (CLAIMED, STARTED_AT), (WITHDRAWN,)

    assert {index * 8 // 64 for index in child}.isdisjoint(index * 8 // 64 for index in parent)

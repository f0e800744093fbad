"""What the log of a worker says about its tasks."""

from __future__ import annotations

from celery.bin.logtool import Audit

LOG = """\
[2026-01-01 10:00:00,000: INFO/MainProcess] w@h ready.
[2026-01-01 10:00:01,000: INFO/MainProcess] Task proj.add[id-1] received
[2026-01-01 10:00:01,000: INFO/MainProcess] Task proj.add[id-2] received
[2026-01-01 10:00:01,000: INFO/MainProcess] Task proj.boom[id-3] received
[2026-01-01 10:00:01,000: INFO/MainProcess] Task proj.slow[id-4] received
[2026-01-01 10:00:01,000: INFO/MainProcess] Task proj.again[id-5] received
[2026-01-01 10:00:01,100: INFO/ForkPoolWorker-1] Task proj.add[id-1] succeeded in 0.1s: 'Task x[y] received'
[2026-01-01 10:00:01,100: INFO/ForkPoolWorker-1] Task proj.again[id-5] retry: Retry in 3s
[2026-01-01 10:00:01,200: ERROR/ForkPoolWorker-1] Task proj.boom[id-3] raised unexpected: KeyError('lost')
Traceback (most recent call last):
  File "proj.py", line 3, in boom
    raise KeyError("lost")
KeyError: 'lost'
[2026-01-01 10:00:01,300: WARNING/ForkPoolWorker-1] printed: [not: A/record]
Traceback of something else
[2026-01-01 10:00:01,400: INFO/MainProcess] Task proj.add[id-2] succeeded in 0.1s: None
"""


def fed(audit: Audit) -> Audit:
    for line in LOG.splitlines(keepends=True):
        audit.feed(line)
    return audit


def test_tasks_are_counted_by_name_and_end():
    audit = fed(Audit())

    assert audit.report()["task"] == {
        "total": 5,
        "errors": 1,
        "completed": 3,
        "succeeded": 2,
        "types": "2: proj.add\n1: proj.boom\n1: proj.slow\n1: proj.again",
    }
    assert audit.incomplete_tasks() == {"id-4", "id-5"}
    assert audit.names["id-4"] == "proj.slow"


def test_errors_and_tracebacks_are_told_once():
    errors: list[tuple] = []
    traces: list[str] = []
    fed(Audit(on_task_error=lambda *arguments: errors.append(arguments), on_trace=traces.append))

    assert [arguments[1:] for arguments in errors] == [("proj.boom", "id-3", "raised unexpected: KeyError('lost')")]
    assert [trace.splitlines()[-1] for trace in traces] == ["KeyError: 'lost'"]


def test_records_about_no_task_are_told():
    records: list[str] = []
    fed(Audit(on_debug=records.append))

    assert [line.partition("] ")[2] for line in records] == ["w@h ready.", "printed: [not: A/record]"]

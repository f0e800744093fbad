"""Runs commands of the program ``celery`` one after the other, each in a fork of this process: imports cost once.

A line of JSON on stdin is ``[words, directory, environment]``; the answer is ``[status, stdout, stderr]``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback

import celery.__main__
import celery.app.base
import celery.apps.worker
import celery.bin.amqp
import celery.bin.call
import celery.bin.celery
import celery.bin.control
import celery.bin.events
import celery.bin.multi
import celery.bin.result
import celery.bin.worker

PATIENCE = 60


def run(words: list[str], directory: str, environment: dict[str, str]) -> list[object]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if not pid:
            os._exit(child(words, directory, environment, out.fileno(), err.fileno()))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return [status, out.read(), err.read()]


def child(words: list[str], directory: str, environment: dict[str, str], out: int, err: int) -> int:
    signal.alarm(PATIENCE)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["celery", *words]
    try:
        celery.__main__.main()
        status = 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)

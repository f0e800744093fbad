"""A worker in a thread of the test.

``with start_worker(app):`` returns when the worker consumes and has run a task, and stops it at the end.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import worker as worker_room
from celery._state import _set_task_join_will_block
from celery.result import allow_join_result
from celery.utils.dispatch import Signal
from celery.utils.nodenames import anon_nodename
from celery.worker import state

WORKER_LOGLEVEL = os.environ.get("WORKER_LOGLEVEL", "error")

#: the worker is about to be made; the sender is the app
test_worker_starting = Signal(name="test_worker_starting", providing_args=set())
#: it consumes; the sender is the app
test_worker_started = Signal(name="test_worker_started", providing_args={"worker", "consumer"})
#: it has stopped; the sender is the app
test_worker_stopped = Signal(name="test_worker_stopped", providing_args={"worker"})

for _signal in (test_worker_starting, test_worker_started, test_worker_stopped):
    _signal.__test__ = False  # type: ignore[attr-defined]  # pytest collects what is called test_*


class TestWorkController(worker_room.WorkController):
    """A worker that says when it is ready, and brings home what its child processes log."""

    __test__ = False

    #: the log records of child processes on their way to the parent; only where the pool has any
    logger_queue: Any = None

    class QueueHandler(logging.handlers.QueueHandler):
        """Sends the records of a child process to the parent."""

        parent_pid: int | None = None

        def filter(self, record: logging.LogRecord) -> Any:
            return os.getpid() != self.parent_pid and super().filter(record)

        def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
            prepared: logging.LogRecord = super().prepare(record)  # as text: tracebacks and arguments stay in the child
            return prepared

        def handleError(self, record: logging.LogRecord) -> None:
            if logging.raiseExceptions:
                raise  # called while an exception is handled

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._on_started = threading.Event()
        self.pid = os.getpid()
        self.queue_listener: Any = None
        super().__init__(*args, **kwargs)
        if self.pool_cls.__module__.rpartition(".")[2] == "prefork":
            from billiard import Queue

            self.logger_queue = Queue()
            self.queue_listener = logging.handlers.QueueListener(self.logger_queue, _HandleAgain())

    def start(self) -> None:
        if self.logger_queue is None:
            return super().start()
        handler = self.QueueHandler(self.logger_queue)
        handler.parent_pid = self.pid
        root = logging.getLogger()
        root.addHandler(handler)
        self.queue_listener.start()
        try:
            return super().start()
        finally:
            root.removeHandler(handler)
            self.queue_listener.stop()
            self.logger_queue.close()

    def on_consumer_ready(self, consumer: Any) -> None:
        super().on_consumer_ready(consumer)
        self._on_started.set()
        test_worker_started.send(sender=self.app, worker=self, consumer=consumer)

    def ensure_started(self) -> None:
        """Wait until the worker consumes."""
        self._on_started.wait()


class _HandleAgain(logging.Handler):
    """Gives a child's record to the handlers that would have had it here."""

    def handle(self, record: logging.LogRecord) -> Any:
        logging.getLogger(record.name).handle(record)
        return True


@contextmanager
def start_worker(
    app: Any,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: Any = WORKER_LOGLEVEL,
    logfile: str | None = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Iterator[Any]:
    """Run a worker of ``app`` in a thread while the block runs; yield it.

    With ``perform_ping_check`` the task ``celery.ping`` has to return within ``ping_task_timeout`` seconds.  ``kwargs``
    go to the worker.

    Raises:
        RuntimeError: the worker did not stop within ``shutdown_timeout`` seconds.
    """
    test_worker_starting.send(sender=app)
    worker = None
    try:
        with _worker_thread(
            app, concurrency, pool, loglevel, logfile, perform_ping_check, shutdown_timeout, **kwargs
        ) as worker:
            if perform_ping_check:
                with allow_join_result():
                    answer = app.tasks["celery.ping"].delay().get(timeout=ping_task_timeout)
                assert answer == "pong", f"the worker answered celery.ping with {answer!r}"
            yield worker
    finally:
        test_worker_stopped.send(sender=app, worker=worker)


@contextmanager
def _worker_thread(
    app: Any,
    concurrency: int,
    pool: str,
    loglevel: Any,
    logfile: str | None,
    perform_ping_check: bool,
    shutdown_timeout: float,
    WorkController: Any = TestWorkController,
    **kwargs: Any,
) -> Iterator[Any]:
    setup_app_for_worker(app, loglevel, logfile)
    # queues exist before anything is sent to them
    with app.connection(hostname=os.environ.get("TEST_BROKER")) as connection:
        for queue in app.amqp.queues.values():
            queue.bind(connection.default_channel).declare()
    options = {"without_heartbeat": True, "without_mingle": True, "without_gossip": True, **kwargs}
    worker = WorkController(
        app=app,
        concurrency=concurrency,
        hostname=options.pop("hostname", None) or anon_nodename(),
        pool=pool,
        loglevel=loglevel,
        logfile=logfile,
        ready_callback=None,
        **options,
    )
    thread = threading.Thread(target=_run, args=(worker,), daemon=True, name="test-worker")
    thread.start()
    worker.ensure_started()
    _set_task_join_will_block(False)
    try:
        yield worker
    finally:
        state.should_terminate = 0
        thread.join(shutdown_timeout)
        still_runs = thread.is_alive()
        state.should_terminate = None
        if still_runs:
            raise RuntimeError(
                f"The worker did not stop within {shutdown_timeout} seconds: is a task still running? "
                "Wait for tasks at the end of the block, or pass a longer shutdown_timeout."
            )


def _run(worker: Any) -> None:
    try:
        worker.start()
    except SystemExit:
        pass  # how a worker ends when it is told to
    finally:
        worker._on_started.set()  # nobody waits for a worker that could not start


def setup_app_for_worker(app: Any, loglevel: Any, logfile: str | None) -> None:
    """Make an app ready for a worker in this process."""
    import celery.contrib.testing.tasks  # noqa: F401  # the task celery.ping

    app.finalize()
    app.set_current()
    app.set_default()
    type(app.log)._setup = False
    app.log.setup(loglevel=loglevel, logfile=logfile)

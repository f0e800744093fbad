"""Task: what users define, call and retry.

``Task.apply_async`` hands the call to ``app.send_task``; retrying and replacing live in ``celery.app.retrying``,
running without a worker in ``celery.app.eager``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar

from kombu.exceptions import OperationalError

from celery import _state, states
from celery._state import _task_stack
from celery.app import retrying
from celery.app.annotations import resolve_all
from celery.app.context import Context
from celery.app.options import TASK_OPTIONS
from celery.app.registry import _unpickle_task_v2
from celery.exceptions import MaxRetriesExceededError
from celery.local import class_property
from celery.utils.imports import instantiate
from celery.utils.threads import LocalStack

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.canvas import Signature
    from celery.result import AsyncResult, EagerResult

__all__ = ("Context", "Task")

TaskType = type

P = ParamSpec("P")
R = TypeVar("R")


def extract_exec_options(obj: Any) -> dict[str, Any]:
    """Return the options that a task sets for all its calls."""
    return {name: getattr(obj, name, None) for name in TASK_OPTIONS}


class Task(Generic[P, R]):
    """A unit of work with a name and options; ``run`` is what it does.

    One instance stands for the task in the whole process.  What belongs to the run in progress is in ``request``.
    """

    __trace__: Any = None
    __v2_compat__ = False
    __bound__: bool = False

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = OperationalError

    #: How a worker turns a message into work, and what it makes of it; dotted paths or objects.
    Strategy: Any = "celery.worker.strategy:default"
    Request: Any = "celery.worker.request:Request"

    _app: ClassVar[Any] = None
    _backend: Any = None
    _exec_options: dict[str, Any] | None = None
    _default_request: Context | None = None
    #: Set for a task that takes pydantic models: turns models among the arguments into plain values.
    _dump_pydantic_arguments: Any = None

    #: Name of the task; made of module and function name where it is not given.
    name: str = None  # type: ignore[assignment]

    #: Whether calls are checked against the signature of `run`.
    typing: bool | None = None

    #: How often the task may run again; `None` for no limit.
    max_retries: int | None = 3

    #: What a call of ``retry`` gave in its place, for ``autoretry_for``.
    override_max_retries: int | None = None

    #: Seconds before the next try.
    default_retry_delay: float = 3 * 60

    #: As in ``"10/m"``; the limit is kept by each worker by itself.
    rate_limit: Any = None

    #: Whether the return value is thrown away.
    ignore_result: bool | None = None

    #: Whether results of tasks that this one sends are remembered as its children.
    trail = True

    #: Whether events about this task are sent.
    send_events = True

    #: Whether errors are stored though results are ignored.
    store_errors_even_if_ignored: bool | None = None

    #: Whether a result is stored when the task is run in place of being sent; of the setting of that name.
    store_eager_result: bool | None

    #: Name of the serializer for calls.
    serializer: str | None = None

    #: Seconds after which the process that runs it is killed; after which it is warned by an exception.
    time_limit: float | None = None
    soft_time_limit: float | None = None

    #: Whether the state STARTED is stored.
    track_started: bool | None = None

    #: Whether the message is acknowledged after the task ran, and what then counts as having run.
    acks_late: bool | None = None
    acks_on_failure_or_timeout: bool | None = None
    acks_on_failure: bool | None = None
    acks_on_timeout: bool | None = None

    #: Whether a task whose process died goes back to its queue, or counts as to be retried.
    reject_on_worker_lost: bool | None = None
    retry_on_worker_lost: bool | None = None

    #: Errors that are expected: they are logged without a traceback.
    throws: tuple[type[BaseException], ...] = ()

    #: Seconds, or a time, after which nobody starts the task.
    expires: Any = None

    #: Priority of its messages.
    priority: int | None = None

    #: How much of a result's representation is logged.
    resultrepr_maxsize = 1024

    #: The requests in progress, innermost on top; one stack for each task, made when it is bound.
    request_stack: Any = None

    #: A base class only: not registered.
    abstract = True

    #: Options that take the value of a setting where the task gives none.
    from_config: tuple[tuple[str, str], ...] = (
        ("serializer", "task_serializer"),
        ("rate_limit", "task_default_rate_limit"),
        ("priority", "task_default_priority"),
        ("time_limit", "task_time_limit"),
        ("soft_time_limit", "task_soft_time_limit"),
        ("track_started", "task_track_started"),
        ("acks_late", "task_acks_late"),
        ("acks_on_failure_or_timeout", "task_acks_on_failure_or_timeout"),
        ("acks_on_failure", "task_acks_on_failure"),
        ("acks_on_timeout", "task_acks_on_timeout"),
        ("reject_on_worker_lost", "task_reject_on_worker_lost"),
        ("retry_on_worker_lost", "task_retry_on_worker_lost"),
        ("ignore_result", "task_ignore_result"),
        ("store_eager_result", "task_store_eager_result"),
        ("store_errors_even_if_ignored", "task_store_errors_even_if_ignored"),
    )

    # -- binding

    @classmethod
    def bind(cls, app: Celery) -> Celery:
        """Make this the task of ``app``: options that are not set come from its configuration."""
        was_bound, cls.__bound__ = cls.__bound__, True
        cls._app = app
        conf = app.conf
        cls._exec_options = None
        if cls.typing is None:
            cls.typing = app.strict_typing
        for option, setting in cls.from_config:
            if getattr(cls, option, None) is None:
                setattr(cls, option, conf[setting])
        for option in ("acks_on_failure", "acks_on_timeout"):
            if getattr(cls, option) is None:
                setattr(cls, option, cls.acks_on_failure_or_timeout)
        if not was_bound:
            cls.annotate()
            cls.request_stack = LocalStack()
        cls.on_bound(app)
        return app

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Called when the task is bound to an app."""

    @classmethod
    def _get_app(cls) -> Celery:
        if cls._app is None:
            cls._app = _state.get_current_app()
        if not cls.__bound__:
            # The application may be finalized later, but options are looked at now.
            cls.bind(cls._app)
        return cls._app  # type: ignore[no-any-return]

    app = class_property(_get_app, bind)

    @classmethod
    def annotate(cls) -> None:
        """Apply the setting ``task_annotations``; a key with ``@`` in front wraps a method."""
        for annotation in resolve_all(cls.app.annotations, cls):
            for name, value in annotation.items():
                if name.startswith("@"):
                    cls.add_around(name[1:], value)
                else:
                    setattr(cls, name, value)

    @classmethod
    def add_around(cls, attr: str, around: Any) -> None:
        """Replace the method ``attr`` by ``around(method)``; done twice, the first wrap goes."""
        method = getattr(cls, attr)
        method = getattr(method, "__wrapped__", method)
        wrapped = around(method)
        wrapped.__wrapped__ = method
        setattr(cls, attr, wrapped)

    # -- running

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the task here and now, as a plain function with a request."""
        if self.request_stack is None:
            self._get_app()
        _task_stack.push(self)
        self.push_request(args=args, kwargs=kwargs)
        try:
            return self.run(*args, **kwargs)
        finally:
            self.pop_request()
            _task_stack.pop()

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the task does."""
        raise NotImplementedError(f"Task {self.name or type(self).__name__} must define run().")

    def __reduce__(self) -> Any:
        module = type(self).__module__
        return _unpickle_task_v2, (self.name, module), None

    def start_strategy(self, app: Celery, consumer: Any, **kwargs: Any) -> Any:
        """Return the function that receives this task's messages in a worker."""
        return instantiate(self.Strategy, self, app, consumer, **kwargs)

    # -- calling

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send the task and return a handle on its result; blocks until the broker has the message.

        ``options`` are countdown and time limits (seconds), eta (a datetime), expires (seconds from now or a datetime),
        queue, priority, headers, timeout (seconds for all attempts to publish), and what ``send_task`` takes besides.

        Raises:
            TypeError: the arguments do not fit the signature, or an option has a wrong type.
            kombu.exceptions.OperationalError: the broker was not reached.
            kombu.exceptions.EncodeError: an argument cannot be serialized.
        """
        if self._dump_pydantic_arguments is not None:
            args, kwargs = self._dump_pydantic_arguments(args, kwargs)
        if self.typing:
            check = getattr(self, "__header__", None)
            if check is not None:
                check(*(args or ()), **(kwargs or {}))
        app = self._get_app()
        shadow = shadow or self.shadow_name(args, kwargs, options)
        if app.conf.task_always_eager:
            from celery.app import eager  # it needs the tracer, which needs this module

            return eager.call(self, args, kwargs, task_id=task_id, link=link, link_error=link_error, **options)
        return app.send_task(
            self.name,
            args,
            kwargs,
            task_id=task_id,
            producer=producer,
            link=link,
            link_error=link_error,
            result_cls=self.AsyncResult,
            shadow=shadow,
            task_type=self,
            **options,
        )

    def _get_exec_options(self) -> dict[str, Any]:
        if self._exec_options is None:
            self._exec_options = extract_exec_options(self)
        return self._exec_options

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Return the name that logs and monitors show for this call, or ``None`` for the task's own."""

    def apply(
        self,
        args: Any = None,
        kwargs: Any = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        throw: bool | None = None,
        logfile: Any = None,
        loglevel: Any = None,
        headers: Any = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run the task here, as a worker would; ``throw`` (or ``task_eager_propagates``) lets its errors out."""
        from celery.app import eager

        return eager.run(
            self, args, kwargs, link, link_error, task_id, retries, throw, logfile, loglevel, headers, options
        )

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:
        """Return a handle on the result of the call ``task_id``."""
        return self._get_app().AsyncResult(task_id, backend=self.backend, task_name=self.name, **kwargs)

    # -- as a signature

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Signature[R]:
        """Return a call that is not made yet; options as keyword arguments."""
        from celery.canvas import signature  # loaded by the first signature

        starkwargs.setdefault("app", self.app)
        return signature(self, args, *starargs, **starkwargs)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """``s(1, x=2)`` is ``signature((1,), {"x": 2})``."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Like ``s``, and the result of a parent is not added to the arguments."""
        return self.signature(args, kwargs, immutable=True)

    def chunks(self, it: Iterable[Any], n: int) -> Any:
        """Return calls over ``it``, ``n`` items a message."""
        from celery.canvas import chunks

        return chunks(self.s(), it, n, app=self.app)

    def map(self, it: Iterable[Any]) -> Any:
        """Return one message that calls the task for each item."""
        from celery.canvas import xmap

        return xmap(self.s(), it, app=self.app)

    def starmap(self, it: Iterable[Any]) -> Any:
        """Return one message that calls the task for each tuple of arguments."""
        from celery.canvas import xstarmap

        return xstarmap(self.s(), it, app=self.app)

    # -- inside of a run

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """Send the task again, later, and leave this run by raising ``Retry``.

        ``exc`` is why; it is raised itself when no retry is left.  ``max_retries`` and ``options`` count for this
        retry only.

        Raises:
            Retry: always, unless ``throw`` is false.
            MaxRetriesExceededError: no retry is left, and no ``exc`` was given.
        """
        return retrying.retry(self, args, kwargs, exc, throw, eta, countdown, max_retries, options)

    def signature_from_request(
        self,
        request: Any = None,
        args: Any = None,
        kwargs: Any = None,
        queue: str | None = None,
        **extra_options: Any,
    ) -> Signature[R]:
        """Return the call that ``request`` (the one in progress) was, to make it again."""
        return retrying.signature_from_request(self, request, args, kwargs, queue, extra_options)

    subtask_from_request = signature_from_request

    def replace(self, sig: Signature[Any]) -> Any:
        """Let ``sig`` run in place of this task, under its id; whatever was to follow this task follows that.

        Raises:
            Ignore: always, unless the task runs eagerly, when the outcome of ``sig`` is returned.
        """
        return self.on_replace(retrying.replacement(self, sig))

    def on_replace(self, sig: Signature[Any]) -> Any:
        """Send the signature that replaces this task."""
        return retrying.send_replacement(self, sig)

    def add_to_chord(self, sig: Signature[Any], lazy: bool = False) -> Any:
        """Add ``sig`` to the chord whose header this task is in; ``lazy`` leaves the sending to the caller."""
        request = self.request
        if not request.chord:
            raise ValueError("Current task is not member of any chord")
        sig.set(
            group_id=request.group,
            group_index=request.group_index,
            chord=request.chord,
            root_id=request.root_id,
        )
        result = sig.freeze()
        self.backend.add_to_chord(request.group, result)
        return result if lazy else sig.delay()

    def add_trail(self, result: Any) -> Any:
        """Remember ``result`` as one of a task sent by this one."""
        if self.trail:
            self.request.children.append(result)
        return result

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Store a state of your own, with ``meta`` as the result so far."""
        request = self.request
        self.backend.store_result(task_id or request.id, meta, state, request=request, **kwargs)

    def send_event(
        self, type_: str, retry: bool = True, retry_policy: Mapping[str, Any] | None = None, **fields: Any
    ) -> Any:
        """Send an event about this run: ``self.send_event("task-progress", done=3)``."""
        request = self.request
        if retry_policy is None:
            retry_policy = self.app.conf.task_publish_retry_policy
        with self.app.events.default_dispatcher(hostname=request.hostname) as dispatcher:
            return dispatcher.send(type_, uuid=request.id, retry=retry, retry_policy=retry_policy, **fields)

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Make a request the current one."""
        self.request_stack.push(Context(*args, **kwargs))

    def pop_request(self) -> None:
        """End the current request."""
        self.request_stack.pop()

    @property
    def request(self) -> Context:
        """The call that runs now; outside of one, an empty request."""
        stack = self.request_stack
        request = stack.top if stack is not None else None
        if request is None:
            request = self._default_request
            if request is None:
                request = self._default_request = Context()
        return request

    _get_request = request.fget  # type: ignore[attr-defined]  # of the property

    @property
    def backend(self) -> Any:
        """Where results of this task go."""
        if self._backend is None:
            return self.app.backend
        return self._backend

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    # -- handlers: users override these

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called by the worker before the task runs."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called after the task returned."""

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task is to run again."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task failed."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called after the task ended, with or without an error."""

    def __repr__(self) -> str:
        kind = "<@task: {name} of {app}>" if self.__bound__ else "<unbound @task: {name} of {app}>"
        app = self._app
        where = "None" if app is None else f"{app.main or '__main__'} at 0x{id(app):x}"
        return kind.format(name=self.name, app=where)

    @property
    def __name__(self) -> str:
        return str(type(self).__name__)

    #: Names of states, for tasks that look at their own.
    states = states


BaseTask = Task  # older name

"""``Celery``: the application, the object that names the other rooms.

Making one imports little: queues, control, results and canvas come when they are first used.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

from celery import _state
from celery.app.binding import bound_subclass, kept
from celery.app.calling import Calling
from celery.app.configuring import Configuring
from celery.app.connecting import Connecting, _detach_pools_in_child
from celery.app.declaring import Declaring
from celery.app.pickling import Pickling
from celery.app.registry import TaskRegistry
from celery.app.running import Running
from celery.local import maybe_evaluate
from celery.utils.dispatch import Signal

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from celery.app.models import pydantic_wrapper as pydantic_wrapper
    from celery.app.settings.pending import PendingConfiguration as PendingConfiguration
    from celery.app.utils import AppPickler as AppPickler

__all__ = ("Celery",)

BUILTIN_FIXUPS = {"celery.fixups.django:fixup"}

_HOMES = {
    "AppPickler": "celery.app.utils",
    "PendingConfiguration": "celery.app.settings.pending",
    "pydantic_wrapper": "celery.app.models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


class Celery(Configuring, Connecting, Declaring, Calling, Running, Pickling):
    """An application: its configuration, its tasks, and the way to broker and results.

    ``main`` names it, and stands for ``__main__`` in the names of tasks.  ``broker``, ``backend``, ``include`` and
    further keywords are settings; ``changes`` is a mapping of such.  ``amqp``, ``events``, ``log``, ``control``,
    ``task_cls`` and ``loader`` are classes (or dotted paths of classes) to use in place of ours.  An app becomes
    the current one of this thread unless ``set_as_current=False``.
    """

    SYSTEM: ClassVar[str] = os.uname().sysname if hasattr(os, "uname") else "Windows"
    IS_macOS: ClassVar[bool] = sys.platform == "darwin"
    IS_WINDOWS: ClassVar[bool] = sys.platform == "win32"

    main: str | None = None
    amqp_cls: Any = "celery.app.amqp:AMQP"
    backend_cls: Any = None
    control_cls: Any = "celery.app.control:Control"
    events_cls: Any = "celery.app.events:Events"
    loader_cls: Any = None
    log_cls: Any = "celery.app.log:Logging"
    registry_cls: Any = "celery.app.registry:TaskRegistry"
    task_cls: Any = "celery.app.task:Task"
    builtin_fixups: Any = BUILTIN_FIXUPS

    #: Signs messages and checks them, once `setup_security` was called.
    signing: Any = None

    #: boot steps to add to ``worker`` and ``consumer``
    steps: Any = None
    #: options to add to the command line programs
    user_options: Any = None

    # Signals of this app, made in ``__init__`` where a subclass has no method of that name.
    on_configure: Any = None
    on_after_configure: Any = None
    on_after_finalize: Any = None
    on_after_fork: Any = None

    def __init__(
        self,
        main: str | None = None,
        loader: Any = None,
        backend: Any = None,
        amqp: Any = None,
        events: Any = None,
        log: Any = None,
        control: Any = None,
        set_as_current: bool = True,
        tasks: Any = None,
        broker: Any = None,
        include: Any = None,
        changes: Any = None,
        config_source: Any = None,
        fixups: Any = None,
        task_cls: Any = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        config_source_silent: bool = False,
        **kwargs: Any,
    ) -> None:
        from kombu.clocks import LamportClock

        self.clock = LamportClock()
        self.main = main
        self.amqp_cls = amqp or self.amqp_cls
        self.events_cls = events or self.events_cls
        self.log_cls = log or self.log_cls
        self.control_cls = control or self.control_cls
        self._custom_task_cls_used = bool(task_cls)
        self.task_cls = task_cls or self.task_cls
        self.loader_cls = loader or self._get_default_loader()
        self.set_as_current = set_as_current
        self.steps = defaultdict(set)
        self.user_options = defaultdict(set)
        self.autofinalize = autofinalize
        self.namespace = namespace
        self.strict_typing = strict_typing
        self.use_fast_trace_task = False

        self.configured = False
        self._config_source = config_source
        self._config_source_silent = config_source_silent
        self._conf = None
        self._conf_lock = threading.RLock()
        self._is_configuring = False
        self._pending_defaults = []
        self._pending_periodic_tasks: deque[tuple[str, dict[str, Any], bool]] = deque()
        self._preconf = {**(changes or {}), **kwargs}
        self._preconf_set_by_auto = set()
        self._set_early(broker_url=broker, result_backend=backend, include=include)

        self.finalized = False
        self._finalize_mutex = threading.RLock()
        self._pending = deque()
        self._declared = {}
        self._tasks = tasks if isinstance(tasks, TaskRegistry) else self._new_registry(tasks)

        self._pool = None
        self._local = threading.local()
        self._backend_cache: Any = None
        self._timezone: tuple[int, tzinfo] | None = None

        self._make_signals()
        self.fixups = {*self.builtin_fixups} if fixups is None else fixups
        self._fixups = [fixup for fixup in map(self._load_fixup, self.fixups) if fixup is not None]
        if self.set_as_current:
            self.set_current()
        self.on_init()
        _state._register_app(self)

    def _set_early(self, **settings: Any) -> None:
        """Take settings that were arguments of ours; they do not count as the user's spelling of names."""
        for name, value in settings.items():
            if value:
                self._preconf[name] = value
                self._preconf_set_by_auto.add(name)

    def _new_registry(self, tasks: Any) -> TaskRegistry:
        kind = self.registry_cls
        if isinstance(kind, str):
            kind = TaskRegistry if kind == Celery.registry_cls else _symbol(kind)
        return kind(tasks or {})  # type: ignore[no-any-return]

    def _make_signals(self) -> None:
        if self.on_configure is None:
            self.on_configure = Signal(name="app.on_configure")
        self.on_after_configure = Signal(name="app.on_after_configure", providing_args={"source"})
        self.on_after_finalize = Signal(name="app.on_after_finalize")
        self.on_after_fork = Signal(name="app.on_after_fork")

    def _load_fixup(self, fixup: Any) -> Any:
        if fixup in BUILTIN_FIXUPS and "DJANGO_SETTINGS_MODULE" not in os.environ:
            return None
        try:
            return _symbol(fixup)(self)
        except ModuleNotFoundError as error:
            from warnings import warn

            from celery.exceptions import FixupWarning

            warn(FixupWarning(f"The fixup {fixup} cannot be loaded: {error}."), stacklevel=4)
            return None

    def _get_default_loader(self) -> Any:
        return os.environ.get("CELERY_LOADER") or self.loader_cls or "celery.loaders.app:AppLoader"

    def on_init(self) -> None:
        """For subclasses: called at the end of making the app."""

    # -- life

    def set_current(self) -> None:
        """Make this the app of the current thread."""
        _state._set_current_app(self)

    def set_default(self) -> None:
        """Make this the app of all threads that have none of their own."""
        _state.set_default_app(self)

    def finalize(self, auto: bool = False) -> None:
        """Make all declared tasks, and take over those that others share.

        Raises:
            RuntimeError: with ``auto``, where ``autofinalize`` is off.
        """
        with self._finalize_mutex:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("Contract breach: app not finalized")
            from celery.app import builtins  # noqa: F401  # declares tasks that every app shares

            self.finalized = True
            # Own tasks first: where a shared one has the same name, it does not win.
            pending = self._pending
            while pending:
                maybe_evaluate(pending.popleft())
            _state._announce_app_finalized(self)
            for task in self._tasks.values():
                task.bind(self)
            self.on_after_finalize.send(sender=self)

    def close(self) -> None:
        """Forget the app and its connections; for programs that make many apps, as tests do."""
        self._pool = None
        _state._deregister_app(self)

    def __enter__(self) -> Celery:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _after_fork(self) -> None:
        """Drop, in a child that was just forked, what only the parent may use; nothing is closed."""
        self._drop_connections()
        self._local = threading.local()
        self._backend_cache = None
        self._conf_lock = threading.RLock()
        self._finalize_mutex = threading.RLock()
        vars(self).pop("oid", None)
        self.on_after_fork.send(sender=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'} at {id(self):#x}>"

    # -- tasks

    @property
    def tasks(self) -> TaskRegistry:  # type: ignore[override]
        """All tasks by name; asking finalizes the app."""
        if not self.finalized:
            self.finalize(auto=True)
        return self._tasks

    @kept
    def Task(self) -> Any:
        """The base class of this app's tasks."""
        return self.create_task_cls()

    def create_task_cls(self) -> Any:
        """Return a new base class of tasks."""
        return self.subclass_with_self(self.task_cls, name="Task", attribute="_app", keep_reduce=True, abstract=True)

    @kept
    def annotations(self) -> Any:
        """``task_annotations``, ready for use."""
        from celery.app.annotations import prepare

        return prepare(self.conf.task_annotations)

    def autodiscover_tasks(self, packages: Any = None, related_name: str | None = "tasks", force: bool = False) -> Any:
        """Import ``<package>.tasks`` of each package: when modules are imported, or at once with ``force``.

        ``packages`` may be a callable that returns them; without any, frameworks are asked (Django: installed apps).
        """
        if force:
            return self._autodiscover_tasks(packages, related_name)
        from celery import signals

        def discover(**kwargs: Any) -> None:
            self._autodiscover_tasks(packages, related_name)

        signals.import_modules.connect(discover, weak=False, sender=self)
        return None

    def _autodiscover_tasks(self, packages: Any, related_name: str | None) -> Any:
        found = packages() if callable(packages) else packages
        if not found:
            found = [name for fixup in self._fixups for name in getattr(fixup, "autodiscover_tasks", list)()]
        return self.loader.autodiscover_tasks(found, related_name=related_name)

    # -- rooms

    @kept
    def amqp(self) -> Any:
        return _symbol(self.amqp_cls)(app=self)

    @kept
    def control(self) -> Any:
        return _symbol(self.control_cls)(app=self)

    @kept
    def events(self) -> Any:
        return _symbol(self.events_cls)(app=self)

    @kept
    def log(self) -> Any:
        return _symbol(self.log_cls)(app=self)

    @kept
    def loader(self) -> Any:
        from celery.loaders import get_loader_cls

        return get_loader_cls(self.loader_cls)(app=self)

    def select_queues(self, queues: Any = None) -> Any:
        """Consume from these queues only."""
        return self.amqp.queues.select(queues)

    # -- results

    @property
    def backend(self) -> Any:
        """The result backend: one for each thread, unless it is safe to share."""
        backend = self._backend_cache
        if backend is not None:
            return backend
        try:
            return self._local.backend
        except AttributeError:
            backend = self._local.backend = self._get_backend()
            if getattr(backend, "thread_safe", False):
                self._backend_cache = backend
            return backend

    @backend.setter
    def backend(self, backend: Any) -> None:
        if self._backend_cache is not None:
            self._backend_cache = backend
        self._local.backend = backend

    def _get_backend(self) -> Any:
        from celery.app import backends

        kind, url = backends.by_url(self.backend_cls or self.conf.result_backend, self.loader)
        return kind(app=self, url=url)

    @kept
    def AsyncResult(self) -> Any:
        return self.subclass_with_self("celery.result:AsyncResult")

    @kept
    def GroupResult(self) -> Any:
        return self.subclass_with_self("celery.result:GroupResult")

    @kept
    def ResultSet(self) -> Any:
        return self.subclass_with_self("celery.result:ResultSet")

    # -- security

    def setup_security(
        self,
        allowed_serializers: Iterable[str] | None = None,
        key: Any = None,
        key_password: Any = None,
        cert: Any = None,
        store: Any = None,
        digest: str = "sha256",
        serializer: str = "json",
    ) -> Any:
        """Use signed messages: see ``celery.security.setup_security``."""
        from celery.app.defaults import DEFAULT_SECURITY_DIGEST
        from celery.security import setup_security

        # The default of this method must not hide the setting.
        chosen = None if digest == DEFAULT_SECURITY_DIGEST else digest
        return setup_security(allowed_serializers, key, key_password, cert, store, chosen, serializer, app=self)

    # -- time

    @property
    def timezone(self) -> tzinfo:
        """The time zone of the setting ``timezone``; without one UTC, or local time if ``enable_utc`` is off."""
        conf = self.conf
        if self._timezone is None or self._timezone[0] != conf.version:
            self._timezone = conf.version, self._read_timezone()
        return self._timezone[1]

    def _read_timezone(self) -> tzinfo:
        from celery.app.settings import checks
        from celery.utils.time import timezone

        conf = self.conf
        name = conf.timezone
        if not name:
            return timezone.utc if conf.enable_utc else timezone.local
        wrong = checks.problem("timezone", name)
        if wrong is not None:
            raise checks.Misconfigured(wrong, conf.origin_of("timezone"))
        return timezone.get_timezone(name)

    def uses_utc_timezone(self) -> bool:
        """Whether ``timezone`` is UTC."""
        from celery.utils.time import timezone

        return bool(self.timezone == timezone.utc)

    def now(self) -> datetime:
        """Return the time, in ``timezone``."""
        from datetime import datetime

        return datetime.now(self.timezone)

    # -- identity

    @kept
    def oid(self) -> str:
        """A unique id of this app in this process."""
        from kombu.common import oid_from

        return oid_from(self, threads=False)  # type: ignore[no-any-return, no-untyped-call]

    @property
    def thread_oid(self) -> str:
        """A unique id of this app in this thread; answers come to a queue of that name."""
        try:
            return self._local.oid  # type: ignore[no-any-return]
        except AttributeError:
            from kombu.common import oid_from

            self._local.oid = oid = oid_from(self, threads=True)  # type: ignore[no-untyped-call]
            return oid  # type: ignore[no-any-return]

    # -- small tools

    def either(self, default_key: str, *defaults: Any) -> Any:
        """Return the first of ``defaults`` that is not ``None``, or else the setting ``default_key``."""
        from celery.utils.functional import first

        found = first(lambda value: value is not None, defaults)
        return self.conf.get(default_key) if found is None else found

    def subclass_with_self(
        self,
        Class: Any,
        name: str | None = None,
        attribute: str = "app",
        reverse: str | None = None,
        keep_reduce: bool = False,
        **kw: Any,
    ) -> Any:
        """Return a subclass of ``Class`` that is bound to this app; see ``celery.app.binding``."""
        return bound_subclass(self, Class, name, attribute, reverse, keep_reduce, **kw)

    def _rgetattr(self, path: str) -> Any:
        return attrgetter(path)(self)


App = Celery


def _symbol(path: Any) -> Any:
    if not isinstance(path, str):
        return path
    from celery.utils import imports

    return imports.symbol_by_name(path)  # type: ignore[no-untyped-call]


def _unpickle_appattr(reverse_name: str, args: tuple[Any, ...]) -> Any:
    """Call what the current app has by this name; objects of bound classes are pickled so."""
    return _state.get_current_app()._rgetattr(reverse_name)(*args)


def _after_fork_in_child() -> None:
    _detach_pools_in_child()
    for app in _state._get_active_apps():
        app._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

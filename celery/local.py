"""Proxies: a name that finds its object when used, and modules that find their names when asked."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

__all__ = ("Proxy", "PromiseProxy", "try_import", "maybe_evaluate")


def _unary(operation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def method(self: Any) -> Any:
        return operation(self._get_current_object())

    return method


def _binary(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        return operation(self._get_current_object(), other)

    return method


def _reflected(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        return operation(other, self._get_current_object())

    return method


class _ProxyDoc:
    """``__doc__``: the text given to the proxy, or that of its target; on a class, the class's own."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __get__(self, proxy: Any, owner: Any = None) -> str | None:
        if proxy is None:
            return self.text
        given: str | None = proxy._Proxy__doc
        return given if given is not None else getattr(proxy._get_current_object(), "__doc__", None)


class _ProxyModule(str):
    """``__module__``: that of the target; on a class, the class's own, which must be a str."""

    def __get__(self, proxy: Any, owner: Any = None) -> str:
        return str(self) if proxy is None else proxy._get_current_object().__module__


class Proxy:
    __doc__ = _ProxyDoc(
        """Stands for the object that ``local(*args, **kwargs)`` returns at the moment of use.

        Nearly everything is forwarded, ``isinstance`` and ``==`` included.  Where ``local`` is a
        ``celery.utils.threads.Local``, the proxy stands for its attribute ``name``.
        """
    )

    __slots__ = ("__args", "__custom_name", "__doc", "__kwargs", "__local")

    __module__ = _ProxyModule(__name__)

    def __init__(
        self,
        local: Any,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        __doc__: str | None = None,
    ) -> None:
        assign = object.__setattr__
        if name is not None and hasattr(local, "__release_local__"):
            local, args, kwargs = getattr, (local, name), None
        assign(self, "_Proxy__local", local)
        assign(self, "_Proxy__args", args or ())
        assign(self, "_Proxy__kwargs", kwargs or {})
        assign(self, "_Proxy__custom_name", name)
        assign(self, "_Proxy__doc", __doc__)

    def _get_current_object(self) -> Any:
        """Return the object behind the proxy, for code where the proxy itself would do harm."""
        return self.__local(*self.__args, **self.__kwargs)

    @property
    def __name__(self) -> str:
        name: str | None = self.__custom_name
        return name if name is not None else self._get_current_object().__name__

    def _get_class(self) -> Any:
        return self._get_current_object().__class__

    @property
    def __class__(self) -> Any:
        return self._get_class()

    @__class__.setter
    def __class__(self, value: Any) -> None:
        self._get_current_object().__class__ = value

    @property
    def __dict__(self) -> Any:  # type: ignore[override]  # found on the target
        try:
            return self._get_current_object().__dict__
        except RuntimeError:
            raise AttributeError("__dict__") from None

    def __dir__(self) -> Iterable[str]:
        try:
            return dir(self._get_current_object())
        except RuntimeError:
            return []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __bool__(self) -> bool:
        try:
            return bool(self._get_current_object())
        except RuntimeError:  # nothing is bound
            return False

    __nonzero__ = __bool__

    def __repr__(self) -> str:
        return repr(self._get_current_object())

    def __str__(self) -> str:
        return str(self._get_current_object())

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __call__(self, *a: Any, **kw: Any) -> Any:
        return self._get_current_object()(*a, **kw)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._get_current_object())

    def __setitem__(self, key: Any, value: Any) -> None:
        self._get_current_object()[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._get_current_object()[key]

    def __enter__(self) -> Any:
        return self._get_current_object().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        return self._get_current_object().__exit__(kind, error, traceback)

    def __reduce__(self) -> Any:
        return self._get_current_object().__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._get_current_object().__reduce_ex__(protocol)

    __getitem__ = _binary(operator.getitem)
    __contains__ = _binary(operator.contains)
    __len__ = _unary(len)

    __lt__ = _binary(operator.lt)
    __le__ = _binary(operator.le)
    __eq__ = _binary(operator.eq)
    __ne__ = _binary(operator.ne)
    __gt__ = _binary(operator.gt)
    __ge__ = _binary(operator.ge)

    __add__ = _binary(operator.add)
    __sub__ = _binary(operator.sub)
    __mul__ = _binary(operator.mul)
    __floordiv__ = _binary(operator.floordiv)
    __truediv__ = _binary(operator.truediv)
    __mod__ = _binary(operator.mod)
    __divmod__ = _binary(divmod)
    __pow__ = _binary(pow)
    __lshift__ = _binary(operator.lshift)
    __rshift__ = _binary(operator.rshift)
    __and__ = _binary(operator.and_)
    __xor__ = _binary(operator.xor)
    __or__ = _binary(operator.or_)

    __radd__ = _reflected(operator.add)
    __rsub__ = _reflected(operator.sub)
    __rmul__ = _reflected(operator.mul)
    __rtruediv__ = _reflected(operator.truediv)
    __rand__ = _reflected(operator.and_)
    __ror__ = _reflected(operator.or_)

    __neg__ = _unary(operator.neg)
    __pos__ = _unary(operator.pos)
    __abs__ = _unary(abs)
    __invert__ = _unary(operator.invert)
    __int__ = _unary(int)
    __float__ = _unary(float)
    __complex__ = _unary(complex)
    __index__ = _unary(operator.index)


class PromiseProxy(Proxy):
    __doc__ = _ProxyDoc(
        """A proxy that makes its object once, at first use, and keeps it.

        ``__then__`` asks to be called back when that happens.
        """
    )

    __slots__ = ("__pending__", "__thing", "__weakref__")

    __module__ = _ProxyModule(__name__)

    def _get_current_object(self) -> Any:
        try:
            return self.__thing
        except AttributeError:
            return self.__evaluate__()

    def __getattr__(self, name: str) -> Any:
        # ``self.__thing`` above asks here when its slot is empty.
        if name == "_PromiseProxy__thing":
            raise AttributeError(name)
        return getattr(self._get_current_object(), name)

    def __then__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``fun(*args, **kwargs)`` once the object is there: now, if it is."""
        if self.__evaluated__():
            return fun(*args, **kwargs)
        try:
            pending = object.__getattribute__(self, "__pending__")
        except AttributeError:
            pending = []
            object.__setattr__(self, "__pending__", pending)
        pending.append((fun, args, kwargs))
        return None

    def __evaluated__(self) -> bool:
        try:
            object.__getattribute__(self, "_PromiseProxy__thing")
        except AttributeError:
            return False
        return True

    def __maybe_evaluate__(self) -> Any:
        return self._get_current_object()

    def __evaluate__(self, _clean: tuple[str, ...] = ("_Proxy__local", "_Proxy__args", "_Proxy__kwargs")) -> Any:
        if self.__evaluated__():
            return object.__getattribute__(self, "_PromiseProxy__thing")
        try:
            thing = Proxy._get_current_object(self)
        except AttributeError:
            # Another thread, or the maker itself, was faster and dropped what made the object.
            if self.__evaluated__():
                return object.__getattribute__(self, "_PromiseProxy__thing")
            raise
        object.__setattr__(self, "_PromiseProxy__thing", thing)
        for attribute in _clean:
            try:
                object.__delattr__(self, attribute)
            except AttributeError:
                pass
        self.__run_pending()
        return thing

    def __run_pending(self) -> None:
        try:
            pending = object.__getattribute__(self, "__pending__")
            object.__delattr__(self, "__pending__")
        except AttributeError:
            return
        for fun, args, kwargs in pending:
            fun(*args, **kwargs)


def maybe_evaluate(obj: Any) -> Any:
    """Return the object behind a promise, and anything else as it is."""
    try:
        return obj.__maybe_evaluate__()
    except AttributeError:
        return obj


def try_import(module: str, default: Any = None) -> Any:
    """Import and return ``module``, or return ``default`` if it is not there."""
    try:
        return import_module(module)
    except ImportError:
        return default


class class_property:
    """A property of the class itself, readable on instances too."""

    def __init__(self, getter: Any = None, setter: Any = None) -> None:
        self.__get = _as_classmethod(getter)
        self.__set = _as_classmethod(setter)

    def __get__(self, obj: Any, type: Any = None) -> Any:
        owner = obj.__class__ if type is None else type
        return self if self.__get is None else self.__get.__get__(obj, owner)()

    def __set__(self, obj: Any, value: Any) -> Any:
        if obj is None:
            return self
        if self.__set is None:
            raise AttributeError("cannot set this class property")
        return self.__set.__get__(obj, obj.__class__)(value)

    def setter(self, setter: Any) -> class_property:
        return self.__class__(self.__get, setter)


def _as_classmethod(function: Any) -> Any:
    return function if function is None or isinstance(function, classmethod) else classmethod(function)


def reclassmethod(method: Any) -> classmethod[Any, Any, Any]:
    """Make a class method of a method, bound or not."""
    return classmethod(getattr(method, "__func__", method))


# -- lazy modules

#: package → module → name there → where the current app has it
COMPAT_MODULES: dict[str, dict[str, dict[str, str]]] = {
    "celery": {
        "execute": {"send_task": "send_task"},
        "log": {
            "get_default_logger": "log.get_default_logger",
            "redirect_stdouts_to_logger": "log.redirect_stdouts_to_logger",
            "setup_logging_subsystem": "log.setup_logging_subsystem",
        },
        "messaging": {
            "TaskConsumer": "amqp.TaskConsumer",
            "establish_connection": "connection",
            "get_consumer_set": "amqp.TaskConsumer",
        },
        "registry": {"tasks": "tasks"},
    },
}


class LazyModule(ModuleType):
    """A module that imports the home of a name when the name is first asked for."""

    _compat_modules: tuple[str, ...] = ()
    _all_by_module: Mapping[str, Iterable[str]] = {}
    _direct: Mapping[str, str] = {}
    _object_origins: Mapping[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        if name in self._object_origins:
            home: Any = import_module(self._object_origins[name])
            for other in self._all_by_module[home.__name__]:
                setattr(self, other, getattr(home, other))
            return getattr(home, name)
        if name in self._direct:
            module = import_module(self._direct[name])
            setattr(self, name, module)
            return module
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*set(self.__dict__) | set(self._object_origins) | set(self._direct)]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return import_module, (self.__name__,)


def create_module(
    name: str,
    attrs: Mapping[str, Any],
    cls_attrs: Mapping[str, Any] | None = None,
    pkg: ModuleType | None = None,
    base: type[ModuleType] = LazyModule,
    prepare_attr: Callable[[Any], Any] | None = None,
) -> ModuleType:
    """Make a module with ``attrs`` and enter it in ``sys.modules``, below ``pkg`` if given.

    Its class derives from ``base`` and has ``cls_attrs``, so these can be properties.
    """
    class_name = name.rpartition(".")[-1]
    module_class: Any = type(class_name, (base,), {**(cls_attrs or {}), "__module__": ""})
    module: ModuleType = module_class(name)
    for key, value in attrs.items():
        setattr(module, key, prepare_attr(value) if prepare_attr else value)
    sys.modules[f"{pkg.__name__}.{name}" if pkg is not None else name] = module
    return module


def recreate_module(
    name: str,
    compat_modules: Iterable[str] | None = None,
    by_module: Mapping[str, Iterable[str]] | None = None,
    direct: Mapping[str, str] | None = None,
    base: type[ModuleType] = LazyModule,
    **attrs: Any,
) -> tuple[ModuleType, ModuleType]:
    """Replace the module ``name`` by a lazy one; return the old and the new.

    ``by_module`` says which names live in which module, ``direct`` which names are modules.
    """
    old = sys.modules[name]
    compat = tuple(COMPAT_MODULES.get(name, ()) if compat_modules is None else compat_modules)
    origins = get_origins(by_module or {})
    class_attrs = {
        "_compat_modules": compat,
        "_all_by_module": by_module or {},
        "_direct": direct or {},
        "_object_origins": origins,
        "__all__": tuple({*compat, *origins, *(direct or ()), *attrs}),
    }
    new = create_module(name, attrs, cls_attrs=class_attrs, base=base)
    for module in compat:
        setattr(new, module, get_compat_module(new, module))
    new.__spec__ = old.__spec__
    return old, new


def get_compat_module(pkg: ModuleType, name: str) -> ModuleType:
    """Return the module that once was ``pkg.name``; its names are found on the current app."""
    names = COMPAT_MODULES.get(pkg.__name__, {}).get(name, {})

    def found_on_the_app(path: str) -> property:
        return property(lambda self: operator.attrgetter(path)(_current_app()))

    return create_module(name, {}, {key: found_on_the_app(path) for key, path in names.items()}, pkg=pkg)


def _current_app() -> Any:
    return import_module("celery._state").get_current_app()


def get_origins(defs: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Turn ``{module: names}`` into ``{name: module}``."""
    return {name: module for module, names in defs.items() for name in names}

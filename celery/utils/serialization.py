"""Make errors and values fit to travel: pickling of exceptions, plain JSON values, base64, booleans."""

from __future__ import annotations

import datetime
import numbers
import pickle
import sys
from base64 import b64decode as _b64decode
from base64 import b64encode as _b64encode
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any, NoReturn

from .saferepr import saferepr

__all__ = (
    "UnpickleableExceptionWrapper",
    "subclass_exception",
    "find_pickleable_exception",
    "create_exception_cls",
    "get_pickleable_exception",
    "get_pickleable_etype",
    "get_pickled_exception",
    "strtobool",
)

STRTOBOOL_DEFAULT_TABLE = {
    "false": False,
    "no": False,
    "0": False,
    "true": True,
    "yes": True,
    "1": True,
    "on": True,
    "off": False,
}

#: An error shown as one of these would say nothing.
unwanted_base_classes = (Exception, BaseException, object)


def subclass_exception(name: str, parent: type[BaseException], module: str) -> type[BaseException]:
    """Make an exception class."""
    return type(name, (parent,), {"__module__": module})


def create_exception_cls(name: str, module: str, parent: type[BaseException] | None = None) -> type[BaseException]:
    """Make an exception class, to stand for one that cannot be imported here."""
    return subclass_exception(name, parent or Exception, module)


def itermro(cls: type, stop: Container[type]) -> Iterator[type]:
    """Yield the classes of ``cls``'s order of resolution, up to the first in ``stop``."""
    return takewhile(lambda sup: sup not in stop, cls.mro())


def find_pickleable_exception(
    exc: BaseException,
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> BaseException | None:
    """Return ``exc``, or its arguments in the nearest base class that can be pickled, or ``None``.

    ``Exception`` and ``BaseException`` themselves do not count.
    """
    args = getattr(exc, "args", [])
    for supercls in itermro(exc.__class__, unwanted_base_classes):
        try:
            superexc = supercls(*args)
            loads(dumps(superexc))
        except Exception:  # users' classes: anything may happen
            continue
        return superexc  # type: ignore[no-any-return]
    return None


def get_pickleable_etype(
    cls: type[BaseException],
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> type[BaseException]:
    """Return ``cls`` or its nearest base class that can be pickled."""
    for supercls in itermro(cls, unwanted_base_classes):
        try:
            loads(dumps(supercls))
        except Exception:  # users' classes: anything may happen
            continue
        return supercls
    return Exception


class UnpickleableExceptionWrapper(Exception):
    """Carries the name, text and arguments of an exception that cannot be pickled itself.

    Arguments that cannot be pickled are replaced by their representations.
    """

    #: Module of the class.
    exc_module: str | None = None
    exc_cls_name: str | None = None
    exc_args: Any = None

    def __init__(self, exc_module: str, exc_cls_name: str, exc_args: Iterable[Any], text: str | None = None) -> None:
        safe_args = ensure_serializable(exc_args, lambda value: pickle.loads(pickle.dumps(value)))
        self.exc_module = exc_module
        self.exc_cls_name = exc_cls_name
        self.exc_args = safe_args
        self.text = text
        super().__init__(exc_module, exc_cls_name, safe_args, text)

    def restore(self) -> BaseException:
        """Return an exception of a class with the original's name."""
        return create_exception_cls(str(self.exc_cls_name), str(self.exc_module))(*self.exc_args)

    def __str__(self) -> str:
        if self.text is not None:
            return self.text
        return f"{self.exc_cls_name}({', '.join(map(repr, self.exc_args))})"

    @classmethod
    def from_exception(cls, exc: BaseException) -> UnpickleableExceptionWrapper:
        return cls(exc.__class__.__module__, exc.__class__.__name__, getattr(exc, "args", []), saferepr(exc))


def get_pickleable_exception(exc: BaseException) -> BaseException:
    """Return ``exc`` if it can be pickled, else what comes nearest."""
    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:  # users' classes: anything may happen
        return find_pickleable_exception(exc) or UnpickleableExceptionWrapper.from_exception(exc)
    return exc


def get_pickled_exception(exc: BaseException) -> BaseException:
    """Return the exception that ``get_pickleable_exception`` had to wrap."""
    return exc.restore() if isinstance(exc, UnpickleableExceptionWrapper) else exc


def ensure_serializable(items: Iterable[Any], encoder: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return ``items`` with those that ``encoder`` fails on replaced by their representations."""
    return tuple(_serializable(item, encoder) for item in items)


def _serializable(item: Any, encoder: Callable[[Any], Any]) -> Any:
    try:
        encoder(item)
    except Exception:  # users' values: anything may happen
        return saferepr(item)
    return item


def b64encode(s: str | bytes) -> str:
    return _b64encode(s.encode() if isinstance(s, str) else s).decode()


def b64decode(s: str | bytes) -> bytes:
    return _b64decode(s)


def strtobool(term: Any, table: Mapping[str, bool] | None = None) -> Any:
    """Return the boolean that ``term`` names; what is no text is returned as it is.

    Raises:
        TypeError: the text is not in ``table``.
    """
    if not isinstance(term, str):
        return term
    known = STRTOBOOL_DEFAULT_TABLE if table is None else table
    try:
        return known[term.lower()]
    except KeyError:
        raise TypeError(f"Cannot coerce {term!r} to type bool; use one of {', '.join(known)}") from None


def _datetime_to_json(value: datetime.date | datetime.time) -> str:
    text = value.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def jsonify(
    obj: Any,
    builtin_types: Any = (numbers.Real, str),
    key: Any = None,
    keyfilter: Callable[[Any], Any] | None = None,
    unknown_type_filter: Callable[[Any], Any] | None = None,
) -> Any:
    """Return ``obj`` made of types that JSON has.

    Items of mappings are kept for which ``keyfilter(key)`` holds.  ``unknown_type_filter`` converts what is not known.

    Raises:
        ValueError: there is a value of unknown type, and no filter.
    """

    def convert(value: Any, parent: Any) -> Any:
        return jsonify(value, builtin_types, parent, keyfilter, unknown_type_filter)

    if obj is None or isinstance(obj, builtin_types):
        return obj
    if isinstance(obj, (tuple, list)):
        return [convert(item, key) for item in obj]
    if isinstance(obj, dict):
        return {name: convert(item, name) for name, item in obj.items() if not keyfilter or keyfilter(name)}
    if isinstance(obj, (datetime.datetime, datetime.date, datetime.time)):
        return _datetime_to_json(obj)
    if isinstance(obj, datetime.timedelta):
        return str(obj)
    if unknown_type_filter is None:
        raise ValueError(f"Unsupported type: {type(obj)!r} {obj!r} (parent: {key})")
    return unknown_type_filter(obj)


def raise_with_context(exc: BaseException) -> NoReturn:
    """Raise ``exc`` with the exception that is being handled as its cause."""
    current = sys.exc_info()[1]
    if current is None or current is exc:
        raise exc
    raise exc from current

"""Small tools for functions and iterables.

``LRUCache``, ``dictfilter``, ``lazy``, ``mlazy``, ``memoize``, ``is_list``, ``maybe_list`` and
``maybe_evaluate`` are (or build on) kombu's, and imported on first use.
"""

from __future__ import annotations

import inspect
import sys
from collections import UserList
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from kombu.utils.functional import LRUCache, dictfilter, is_list, lazy, maybe_evaluate, maybe_list, memoize

__all__ = (
    "LRUCache",
    "is_list",
    "maybe_list",
    "memoize",
    "mlazy",  # noqa: F822  # made on first use
    "noop",
    "first",
    "firstmethod",
    "chunks",
    "padlist",
    "mattrgetter",
    "uniq",
    "regen",
    "dictfilter",
    "lazy",
    "maybe_evaluate",
    "head_from_fun",
    "maybe",
    "fun_accepts_kwargs",
)

T = TypeVar("T")

_FROM_KOMBU = frozenset(
    ("LRUCache", "dictfilter", "is_list", "lazy", "maybe_evaluate", "maybe_list", "memoize"),
)


def __getattr__(name: str) -> Any:
    if name == "mlazy":
        value: Any = _make_mlazy()
    elif name in _FROM_KOMBU:
        from kombu.utils import functional

        value = getattr(functional, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _make_mlazy() -> type:
    from kombu.utils.functional import lazy

    class mlazy(lazy):
        """A ``lazy`` that calls its function once and keeps the answer in ``_value``."""

        evaluated = False
        _value: Any = None

        def evaluate(self) -> Any:
            if not self.evaluated:
                self._value = super().evaluate()
                self.evaluated = True
            return self._value

    mlazy.__module__, mlazy.__qualname__ = __name__, "mlazy"
    return mlazy


class DummyContext:
    """A context manager that does nothing."""

    def __enter__(self) -> DummyContext:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


def noop(*args: Any, **kwargs: Any) -> None:
    """Take anything, do nothing."""


def pass1(arg: T, *args: Any, **kwargs: Any) -> T:
    """Return the first argument."""
    return arg


def evaluate_promises(it: Iterable[Any]) -> Iterator[Any]:
    """Yield the items of ``it``, with promises replaced by their values."""
    mlazy: Any = __getattr__("mlazy") if "mlazy" not in globals() else globals()["mlazy"]
    for value in it:
        yield value.evaluate() if isinstance(value, mlazy) else value


def first(predicate: Callable[[T], Any], it: Iterable[T]) -> T | None:
    """Return the first item for which ``predicate`` holds and that is not ``None``."""
    for item in evaluate_promises(it):
        if item is not None and predicate(item):
            return item  # type: ignore[no-any-return]
    return None


def firstmethod(method: str, on_call: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Return ``f(objects, *args, **kwargs)``: the first answer of ``object.method`` that is not ``None``.

    Objects without the method are passed over.  ``on_call(bound_method, *args, **kwargs)`` does the calling if given.
    """

    def find(objects: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        for candidate in evaluate_promises(objects):
            bound = getattr(candidate, method, None)
            if bound is None:
                continue
            answer = on_call(bound, *args, **kwargs) if on_call else bound(*args, **kwargs)
            if answer is not None:
                return answer
        return None

    return find


def chunks(it: Iterator[T], n: int) -> Generator[list[T], None, None]:
    """Yield lists of ``n`` items; the last may be shorter."""
    iterator = iter(it)
    while chunk := list(islice(iterator, n)):
        yield chunk


def padlist(container: Sequence[Any], size: int, default: Any = None) -> list[Any]:
    """Return the first ``size`` items, filled up with ``default``."""
    head = list(container[:size])
    return head + [default] * (size - len(head))


def mattrgetter(*attrs: str) -> Callable[[Any], dict[str, Any]]:
    """Return a function that makes ``{name: value}`` of these attributes, ``None`` where there is none."""
    return lambda obj: {attr: getattr(obj, attr, None) for attr in attrs}


def uniq(it: Iterable[T]) -> Iterator[T]:
    """Yield each item once, in order; items must be hashable."""
    return (item for item in dict.fromkeys(it))


def lookahead(it: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Yield each item with the one after it; ``None`` follows the last."""
    iterator = iter(it)
    try:
        current = next(iterator)
    except StopIteration:
        return
    for following in iterator:
        yield current, following
        current = following
    yield current, None


def maybe(typ: Callable[[Any], T], val: Any) -> T | None:
    """Return ``typ(val)``, or ``None`` for ``None``."""
    return None if val is None else typ(val)


def is_numeric_value(value: Any) -> bool:
    """Say whether this is a number to calculate with: an int or a float, no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def seq_concat_item(seq: Any, item: Any) -> Any:
    """Return a new list or tuple, like ``seq``, with ``item`` at its end."""
    return (*seq, item) if isinstance(seq, tuple) else seq + [item]


def seq_concat_seq(a: Any, b: Any) -> Any:
    """Return ``a`` and ``b`` joined, as a list or tuple, whichever the longer is."""
    kind = type(max((a, b), key=len))
    return kind(chain(a, b))


def regen(it: Any) -> Any:
    """Return something to iterate again and again: a list or tuple as it is, else a list that fills lazily."""
    return it if isinstance(it, (list, tuple)) else _regen(it)


class _regen(UserList, list):  # type: ignore[type-arg, misc]  # a list to whoever asks, though filled as it is read
    """Keeps what its iterator gave; reads no further than asked."""

    def __init__(self, it: Iterable[Any]) -> None:
        self._read: list[Any] = []
        self._rest = iter(it)

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (self.data,)

    def __deepcopy__(self, memo: dict[int, Any]) -> _regen:
        from copy import deepcopy

        return _regen(deepcopy(self.data, memo))

    @property
    def data(self) -> list[Any]:  # type: ignore[override]  # UserList keeps a plain attribute
        """Everything: reads the iterator to its end."""
        self._read.extend(self._rest)
        return self._read

    def _has(self, index: int) -> bool:
        missing = index + 1 - len(self._read)
        if missing > 0:
            self._read.extend(islice(self._rest, missing))
        return index < len(self._read)

    def __length_hint__(self) -> int:
        from operator import length_hint

        return len(self._read) + length_hint(self._rest)

    def __iter__(self) -> Iterator[Any]:
        index = 0
        while self._has(index):
            yield self._read[index]
            index += 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and index >= 0:
            if not self._has(index):
                raise IndexError("list index out of range")
            return self._read[index]
        return self.data[index]

    def __bool__(self) -> bool:
        return self._has(0)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join([*map(repr, self._read), '...'])}]>"


# -- signatures of functions

if sys.version_info >= (3, 14):
    from annotationlib import Format

    # annotations may name what is imported for type checkers only
    _SIGNATURE_OPTIONS: dict[str, Any] = {"annotation_format": Format.FORWARDREF}
else:
    _SIGNATURE_OPTIONS: dict[str, Any] = {}


def head_from_fun(fun: Callable[..., Any], bound: bool = False) -> Callable[..., int]:
    """Return a function with the name and parameters of ``fun`` that does nothing.

    Calling it raises the ``TypeError`` that calling ``fun`` would.  With ``bound`` the first parameter
    is left out.  A wrapped function counts as its wrapper; one that cannot be looked into takes anything.
    """
    head, defaults = _parameter_source(fun, bound)
    namespace: dict[str, Any] = {}
    exec(f"def head({head}): return 1", namespace)
    function = namespace["head"]
    # repr() of a default may be no code, so each is set here and not written above
    function.__defaults__, function.__kwdefaults__ = defaults
    function.__name__ = function.__qualname__ = getattr(fun, "__name__", type(fun).__name__)
    function.__module__ = getattr(fun, "__module__", None) or type(fun).__module__
    return function  # type: ignore[no-any-return]


def _parameter_source(fun: Callable[..., Any], bound: bool) -> tuple[str, tuple[Any, Any]]:
    """Return the parameter list as source, and (positional, keyword) defaults."""
    try:
        parameters = [*inspect.signature(fun, follow_wrapped=False, **_SIGNATURE_OPTIONS).parameters.values()]
    except (TypeError, ValueError):  # built in, and without a signature
        return "*args, **kwargs", (None, None)
    if bound and parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        del parameters[0]
    bare = inspect.Signature(
        [p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else 0) for p in parameters]
    )
    positional = [p.default for p in parameters if p.kind is not p.KEYWORD_ONLY and p.default is not p.empty]
    keyword = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
    return str(bare)[1:-1], (tuple(positional) or None, keyword or None)


def arity_greater(fun: Callable[..., Any], n: int) -> bool:
    """Say whether ``fun`` takes more than ``n`` positional arguments (``self`` is one)."""
    spec = inspect.getfullargspec(fun)
    return spec.varargs is not None or len(spec.args) > n


def fun_takes_argument(name: str, fun: Callable[..., Any], position: int | None = None) -> bool:
    """Say whether ``fun`` takes an argument ``name``, or as many as ``position`` by position."""
    spec = inspect.getfullargspec(fun)
    if spec.varkw or spec.varargs:
        return True
    return len(spec.args) >= position if position else name in spec.args


def fun_accepts_kwargs(fun: Callable[..., Any]) -> bool:
    """Say whether ``fun`` has ``**kwargs``."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(fun, **_SIGNATURE_OPTIONS).parameters.values())

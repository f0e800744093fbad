"""Tell users that something will go away."""

from __future__ import annotations

import warnings
from collections.abc import Callable as _Callable
from functools import wraps
from typing import Any

from celery.exceptions import CDeprecationWarning, CPendingDeprecationWarning

__all__ = ("Callable", "Property", "warn")


def warn(
    description: str | None = None,
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    stacklevel: int = 2,
) -> None:
    """Warn that ``description`` is deprecated, or will be as of ``deprecation``."""
    hint = f" Use {alternative} instead." if alternative else ""
    if deprecation is not None:
        message = f"{description} is scheduled for deprecation in version {deprecation} and removal in {removal}."
        warnings.warn(CPendingDeprecationWarning(message + hint), stacklevel=stacklevel)
    else:
        message = f"{description} is deprecated and scheduled for removal in version {removal}."
        warnings.warn(CDeprecationWarning(message + hint), stacklevel=stacklevel)


def Callable(
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
    _stacklevel: int = 3,
) -> _Callable[[_Callable[..., Any]], _Callable[..., Any]]:
    """Decorate a function that warns when called."""

    def decorate(fun: _Callable[..., Any]) -> _Callable[..., Any]:
        from celery.utils.imports import qualname

        @wraps(fun)
        def warn_and_call(*args: Any, **kwargs: Any) -> Any:
            warn(description or qualname(fun), deprecation, removal, alternative, stacklevel=_stacklevel)
            return fun(*args, **kwargs)

        return warn_and_call

    return decorate


def Property(
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> _Callable[[_Callable[..., Any]], Any]:
    """Decorate a property that warns when used."""
    wrapper = Callable(deprecation, removal, alternative, description, _stacklevel=4)
    return lambda getter: _DeprecatedProperty(wrapper, getter)


class _DeprecatedProperty:
    """A property whose functions warn; it is an attribute of the instance's ``__dict__`` without a setter."""

    def __init__(self, wrapper: _Callable[..., Any], fget: Any = None, fset: Any = None, fdel: Any = None) -> None:
        self._wrapper = wrapper
        self._functions = (fget, fset, fdel)
        self._get, self._set, self._delete = (function and wrapper(function) for function in self._functions)
        self.__name__: str = fget.__name__
        self.__doc__ = fget.__doc__

    def __get__(self, obj: Any, type: Any = None) -> Any:
        if obj is None:
            return self
        return self._get(obj)

    def __set__(self, obj: Any, value: Any) -> None:
        if self._set is None:
            raise AttributeError(f"cannot set {self.__name__!r}")
        self._set(obj, value)

    def __delete__(self, obj: Any) -> None:
        if self._delete is None:
            raise AttributeError(f"cannot delete {self.__name__!r}")
        self._delete(obj)

    def setter(self, fset: Any) -> _DeprecatedProperty:
        fget, _, fdel = self._functions
        return type(self)(self._wrapper, fget, fset, fdel)

    def deleter(self, fdel: Any) -> _DeprecatedProperty:
        fget, fset, _ = self._functions
        return type(self)(self._wrapper, fget, fset, fdel)

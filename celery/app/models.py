"""Tasks that take and return pydantic models.

On the wire there are plain values.  Callers may pass models, which are dumped before sending; the task gets models
for each parameter annotated with one (or ``Optional`` one), ``*args`` and ``**kwargs`` included; a model that it
returns is dumped, if so annotated.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

from celery.exceptions import ImproperlyConfigured
from celery.utils.annotations import annotation_issubclass, get_optional_arg

__all__ = ("argument_dumper", "pydantic_wrapper")


def pydantic_wrapper(
    app: Any,
    task_fun: Callable[..., Any],
    task_name: str,
    strict: bool = True,
    context: dict[str, Any] | None = None,
    dump_kwargs: dict[str, Any] | None = None,
) -> Callable[..., Any]:
    """Return ``task_fun`` with models made of its arguments and plain values of what it returns.

    ``context`` is what validators see as ``info.context``, beside ``celery_app`` and ``celery_task_name``.
    ``dump_kwargs`` goes to ``model_dump``.

    Raises:
        ImproperlyConfigured: pydantic is not installed.
    """
    base = _base_model(task_name)
    signature = inspect.signature(task_fun)
    models, returned = _models_of(task_fun, signature, base)
    seen = {**(context or {}), "celery_app": app, "celery_task_name": task_name}
    options = {"mode": "json", **(dump_kwargs or {})}

    def validated(name: str, value: Any) -> Any:
        model, is_optional = models[name]
        if value is None and is_optional:
            return None
        try:
            return model.model_validate(value, strict=strict, context=seen)
        except ValueError as error:
            if not error.args:  # pydantic's own; results carry no more of an error than its arguments
                error.args = (str(error),)
            raise

    @functools.wraps(task_fun)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        for name in models:
            if name in bound.arguments:
                value = bound.arguments[name]
                kind = signature.parameters[name].kind
                if kind is inspect.Parameter.VAR_POSITIONAL:
                    value = tuple(validated(name, each) for each in value)
                elif kind is inspect.Parameter.VAR_KEYWORD:
                    value = {key: validated(name, each) for key, each in value.items()}
                else:
                    value = validated(name, value)
                bound.arguments[name] = value
        result = task_fun(*bound.args, **bound.kwargs)
        if returned and isinstance(result, base):
            return result.model_dump(**options)
        return result

    return wrapper


def argument_dumper(
    task_fun: Callable[..., Any], task_name: str, is_bound: bool, dump_kwargs: dict[str, Any] | None = None
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return a function that turns models among ``(args, kwargs)`` of a call into plain values."""
    signature = inspect.signature(task_fun)
    base = _base_model(task_name)
    models, _ = _models_of(task_fun, signature, base)
    parameters = signature.parameters.values()
    positions = [each.name for each in parameters if each.kind < each.VAR_POSITIONAL][is_bound:]
    rest = next((each.name for each in parameters if each.kind is each.VAR_POSITIONAL), "")
    more = next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), "")
    options = {"mode": "json", **(dump_kwargs or {})}

    def plain(name: str, value: Any) -> Any:
        # Any model, not only one of that class: what fits is for the task to say.
        return value.model_dump(**options) if name in models and isinstance(value, base) else value

    def dump(args: Any, kwargs: Any) -> tuple[Any, Any]:
        if args:
            args = tuple(
                plain(name, value) for name, value in zip_longest(positions[: len(args)], args, fillvalue=rest)
            )
        if kwargs:
            known = signature.parameters
            kwargs = {name: plain(name if name in known else more, value) for name, value in kwargs.items()}
        return args, kwargs

    return dump


def _base_model(task_name: str) -> Any:
    try:
        from pydantic import BaseModel
    except ImportError as error:
        raise ImproperlyConfigured(
            f"The task {task_name} has `pydantic=True`, but pydantic is not installed: pip install 'celery[pydantic]'."
        ) from error
    return BaseModel


def _models_of(
    function: Callable[..., Any], signature: inspect.Signature, base: Any
) -> tuple[dict[str, tuple[Any, bool]], bool]:
    """Return ``{parameter: (model, may be None)}``, and whether the function is said to return a model."""
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # a name in an annotation that is not there at run time; the others still count
        hints = dict(getattr(function, "__annotations__", {}))
    found = {}
    for name in signature.parameters:
        model, is_optional = _model_in(hints.get(name), base)
        if model is not None:
            found[name] = model, is_optional
    return found, _model_in(hints.get("return"), base)[0] is not None


def _model_in(annotation: Any, base: Any) -> tuple[Any, bool]:
    inner = get_optional_arg(annotation)
    model = annotation if inner is None else inner
    return (model, inner is not None) if annotation_issubclass(model, base) else (None, False)


pydantic_wrapper.__module__ = "celery.app.base"

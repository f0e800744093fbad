"""Turn a message's body into bytes, and say in the user's words why that failed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kombu import compression as _compression
from kombu.exceptions import EncodeError
from kombu.serialization import dumps, registry
from kombu.utils import json as kombu_json

__all__ = ("encode", "explained", "known_compressions", "known_serializers")

#: kombu makes an encoder object for every value; one of the same settings can be kept.
_encode_json: Callable[[Any], str] = kombu_json.JSONEncoder().encode
_kombu_dumps = kombu_json.dumps


def encode(body: Any, serializer: str | None, compression: str | None, headers: dict[str, Any]) -> tuple[Any, str, str]:
    """Return ``body`` encoded, its content type and its content encoding; a compression is noted in ``headers``.

    Raises:
        EncodeError: the serializer refuses a value.
        SerializerNotInstalled: there is no such serializer.
    """
    encoded: Any
    if serializer == "json" and registry._encoders["json"].encoder is _kombu_dumps:
        try:
            encoded = _encode_json(body)
        except Exception as error:
            raise EncodeError(error) from error
        content_type, content_encoding = "application/json", "utf-8"
    else:
        content_type, content_encoding, encoded = dumps(body, serializer=serializer)
    if compression:
        encoded, headers["compression"] = _compression.compress(encoded, compression)
    return encoded, content_type, content_encoding


def known_serializers() -> Iterable[str]:
    """Return the names that ``serializer=`` may have."""
    return [*registry._encoders, "raw"]


def known_compressions() -> Iterable[str]:
    """Return the names that ``compression=`` may have."""
    return [*_compression._aliases, *_compression._encoders]


def explained(error: EncodeError, name: str, body: Any, serializer: str, function: Any = None) -> EncodeError:
    """Return an error that names the argument that ``serializer`` refused, or what contains itself."""
    try:
        text = _explanation(name, body, serializer, function)
    except Exception:  # whatever the user's objects do when looked at: the first error is the one to show
        text = None
    return EncodeError(f"{text} ({error})") if text else error


def _explanation(name: str, body: Any, serializer: str, function: Any) -> str | None:
    args, kwargs, embed = _parts(body)
    circle = _find_circle(name, [*args, *kwargs.values(), embed])
    if circle:
        return f"The signature contains itself: {' → '.join(circle)}."
    for position, value in enumerate(args):
        if not _is_accepted(value, serializer):
            which = f"argument {position + 1}"
            parameter = _parameter_name(function, position)
            return _refusal(name, f"{which} (`{parameter}`)" if parameter else which, value, serializer)
    for key, value in kwargs.items():
        if not _is_accepted(value, serializer):
            return _refusal(name, f"argument `{key}`", value, serializer)
    for key, value in embed.items():
        if not _is_accepted(value, serializer):
            return _refusal(name, f"its {key}", value, serializer)
    return None


def _parts(body: Any) -> tuple[Any, Mapping[str, Any], Mapping[str, Any]]:
    if isinstance(body, Mapping):
        return body["args"], body["kwargs"], {key: body[key] for key in ("callbacks", "errbacks", "chord")}
    args, kwargs, embed = body
    return args, kwargs, embed


def _is_accepted(value: Any, serializer: str) -> bool:
    try:
        dumps(value, serializer=serializer)
    except EncodeError:
        return False
    return True


def _refusal(name: str, which: str, value: Any, serializer: str) -> str:
    culprit, places = _culprit(value, serializer)
    where = ", in ".join([f"{name}() {which}", *places])
    return (
        f"{where}: a value of type `{type(culprit).__name__}` cannot be sent as {serializer}. "
        "Send plain values (numbers, text, lists, dicts), register the type, or choose another serializer."
    )


def _culprit(value: Any, serializer: str, depth: int = 40) -> tuple[Any, list[str]]:
    """Return the innermost value that is refused, and the arguments of signatures within ``value`` that lead there."""
    for part, place in _places_in(value) if depth else ():
        if not _is_accepted(part, serializer):
            culprit, further = _culprit(part, serializer, depth - 1)
            return culprit, [place, *further] if place else further
    return value, []


def _places_in(value: Any) -> Iterator[tuple[Any, str]]:
    """Yield the parts of ``value``; with a name for those that are arguments of a task that it calls."""
    if isinstance(value, Mapping) and value.get("task") and not value.get("subtask_type"):
        for position, argument in enumerate(value.get("args") or ()):
            yield argument, f"{value['task']}() argument {position + 1}"
        for key, argument in (value.get("kwargs") or {}).items():
            yield argument, f"{value['task']}() argument `{key}`"
        yield value.get("options"), ""
    elif isinstance(value, Mapping):
        yield from ((part, "") for part in value.values())
    elif isinstance(value, (list, tuple)):
        yield from ((part, "") for part in value)


def _parameter_name(function: Any, position: int) -> str | None:
    if function is None:
        return None
    parameters = list(inspect.signature(function).parameters.values())
    if position < len(parameters) and parameters[position].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        return parameters[position].name
    return None


def _find_circle(name: str, values: Iterable[Any]) -> list[str] | None:
    """Return the task names on the way from the call to a container that holds itself, or ``None``."""
    stack: list[tuple[Iterator[Any], int | None]] = [(iter(values), None)]
    path: dict[int, str | None] = {}
    while stack:
        children, identity = stack[-1]
        for value in children:
            if not isinstance(value, (Mapping, list, tuple)):
                continue
            if id(value) in path:
                names = [label for label in path.values() if label]
                closing = path[id(value)] or (names[0] if names else name)
                return [name, *names, closing]
            path[id(value)] = str(value["task"]) if isinstance(value, Mapping) and value.get("task") else None
            stack.append((iter(list(value.values()) if isinstance(value, Mapping) else value), id(value)))
            break
        else:
            stack.pop()
            if identity is not None:
                path.pop(identity, None)
    return None

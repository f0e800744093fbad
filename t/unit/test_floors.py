"""The house explains itself upward: a room imports from its own floor and those below it, never from above."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import celery

HOUSE = Path(celery.__file__).parent

#: From the ground floor up.
FLOORS = (
    "states exceptions abc local",
    "utils",
    "_state signals platforms",
    "protocol bootsteps security fixups",
    "result backends events loaders concurrency schedules transports",
    "canvas",
    "app",
    "worker beat",
    "apps contrib",
    "bin __main__",
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}

#: The front door, ``celery/__init__``, hands on what users of the app need: programs and plugins may come in by it.
FRONT_DOOR = FLOOR_OF["apps"]

#: What looks up all the same: ``(file, what it imports)`` → why.
ALLOWED = {
    ("utils/debug.py", "celery.platforms"): "an alarm is set through our table of signals, which tests replace",
}

#: Names of the front door that know of no room.
PLAIN_NAMES = {"__version__", "VERSION", "VERSION_BANNER"}


def imports(nodes: list[ast.stmt] | Iterator[ast.AST]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when a module is imported, or that stand under ``TYPE_CHECKING``."""
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imports(ast.iter_child_nodes(node))


def imported(source: str, package: list[str]) -> Iterator[str]:
    """Yield the full names of our modules, and of names of the front door, that a module in ``package`` imports."""
    for node in imports(ast.parse(source).body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "celery")
            continue
        above = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*above, *filter(None, [node.module])])
        if module == "celery":
            yield from (f"celery.{alias.name}" for alias in node.names)
        elif module.startswith("celery."):
            yield module


def looks_up(name: str, room: str) -> bool:
    """Whether ``name`` is above the floor of ``room``."""
    target = [*name.split("."), ""][1]
    if target in PLAIN_NAMES or not target:  # ``import celery`` alone, for where it is
        return False
    return FLOOR_OF.get(target, FRONT_DOOR) > FLOOR_OF[room]


def violations() -> Iterator[tuple[str, str]]:
    for path in sorted(HOUSE.rglob("*.py")):
        file = path.relative_to(HOUSE)
        package = ["celery", *file.parts[:-1]]
        room = file.parts[0].removesuffix(".py")
        if room == "__init__":
            continue  # the front door hands on what is in all rooms
        for name in imported(path.read_text(), package):
            if looks_up(name, room):
                yield str(file), name


def test_every_room_has_a_floor():
    rooms = {path.name.removesuffix(".py") for path in HOUSE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__"} <= FLOOR_OF.keys()


def test_no_room_imports_from_above():
    assert sorted(set(violations()) - ALLOWED.keys()) == []


def test_every_exception_is_still_one():
    assert set(ALLOWED) - set(violations()) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from celery.worker import state", ["celery.worker"]),
        ("from ..app import base", ["celery.app"]),
        ("from celery import Celery, signals", ["celery.Celery", "celery.signals"]),
        ("if TYPE_CHECKING:\n    import celery.app.task", ["celery.app.task"]),
        ("try:\n    import kombu\nexcept ImportError:\n    from celery.bin import base", ["celery.bin"]),
        ("class A:\n    from celery.app import task", ["celery.app"]),
        ("def late():\n    from celery.bin import celery", []),
    ],
)
def test_imports_are_found_wherever_they_run(source, found):
    assert list(imported(source, ["celery", "utils"])) == found


@pytest.mark.parametrize(
    ("name", "room", "is_above"),
    [
        ("celery.Celery", "worker", True),
        ("celery.Celery", "contrib", False),
        ("celery.app.base", "canvas", True),
        ("celery.app.base", "app", False),
        ("celery.states", "utils", False),
        ("celery.__version__", "utils", False),
        ("celery", "app", False),
    ],
)
def test_the_front_door_is_above_all_that_it_opens_on(name, room, is_above):
    assert looks_up(name, room) is is_above

"""Tools for hunting bugs: stacks of all threads, memory, code that blocks."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, TextIO

from celery.platforms import signals

__all__ = ("blockdetection", "sample_mem", "memdump", "sample", "humanbytes", "mem_rss", "ps", "cry")

#: size in bytes, its name, larger ones first
UNITS = ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "KB"), (0, "b"))

_process: Any = None
_mem_sample: list[str] = []


def _on_blocking(signum: int, frame: Any) -> None:
    import inspect

    raise RuntimeError(f"Blocking detection timed-out at: {inspect.getframeinfo(frame)}")


@contextmanager
def blockdetection(timeout: float | None) -> Iterator[None]:
    """Raise ``RuntimeError`` in the code inside once it took ``timeout`` seconds; nothing happens without one."""
    if not timeout:
        yield
        return
    old_handler = signals["ALRM"]
    old_handler = None if old_handler is _on_blocking else old_handler
    signals["ALRM"] = _on_blocking
    try:
        signals.arm_alarm(timeout)
        yield
    finally:
        signals.reset_alarm()
        if old_handler:
            signals["ALRM"] = old_handler


def sample_mem() -> str | None:
    """Note the memory that this process has now, for ``memdump``; return it."""
    current = mem_rss()
    if current is not None:
        _mem_sample.append(current)
    return current


def memdump(samples: int = 10, file: TextIO | None = None) -> None:
    """Print what ``sample_mem`` noted, ``samples`` of it, and forget it."""
    if ps() is None:
        print("- rss: (psutil not installed).", file=file)
        return
    before, after = _memdump(samples)
    if before:
        print("- rss (sample):", file=file)
        for memory in before:
            print(f"-    > {memory},", file=file)
    print(f"- rss (end): {after}.", file=file)


def _memdump(samples: int = 10) -> tuple[list[str], str | None]:
    noted = list(sample(_mem_sample, samples)) if _mem_sample else []
    _mem_sample.clear()
    return noted, mem_rss()


def sample(x: Sequence[Any], n: int, k: int = 0) -> Iterator[Any]:
    """Yield ``n`` items of ``x``, evenly spread, from index ``k`` on; all if there are fewer."""
    step = len(x) // n
    if step < 1:
        yield from x
        return
    for index in range(k, min(len(x), k + n * step), step):
        yield x[index]


def hfloat(f: float, p: int = 5) -> str:
    """Return a number with ``p`` digits, without a fraction where there is none."""
    whole = int(f)
    return str(whole) if whole == f else f"{f:.{p}}"


def humanbytes(s: float) -> str:
    """Return a size in its largest unit: ``1.5MB``."""
    size, unit = next((size, unit) for size, unit in UNITS if s >= size)
    return f"{hfloat(s / size if size else s)}{unit}"


def mem_rss() -> str | None:
    """Return how much memory this process has; ``None`` without psutil."""
    process = ps()
    return None if process is None else humanbytes(_process_memory_info(process).rss)


def _process_memory_info(process: Any) -> Any:
    return process.memory_info()


def ps() -> Any:
    """Return psutil's handle of this process; ``None`` without psutil."""
    global _process
    if _process is None or _process.pid != os.getpid():
        try:
            import psutil
        except ImportError:
            return None
        _process = psutil.Process(os.getpid())
    return _process


def cry(out: Any = None, sepchr: str = "=", seplen: int = 49) -> Any:
    """Return the stacks of all threads as text, or write them to ``out``."""
    import threading

    output = StringIO() if out is None else out
    threads = {thread.ident: thread for thread in threading.enumerate()}
    separator = sepchr * seplen
    for ident, frame in sys._current_frames().items():
        thread = threads.get(ident)
        if thread is None:  # it ended meanwhile
            continue
        print(thread.name, separator, sep="\n", file=output)
        traceback.print_stack(frame, file=output)
        print(separator, "LOCAL VARIABLES", separator, sep="\n", file=output)
        print(_shown(frame.f_locals), "\n", file=output)
    return output.getvalue() if out is None else None


def _shown(variables: dict[str, Any]) -> str:
    from celery.utils.saferepr import saferepr

    return saferepr(variables, maxlen=4096)

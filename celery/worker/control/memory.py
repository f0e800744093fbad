"""Commands that look for what takes the memory."""

from __future__ import annotations

import io
import tempfile
from typing import Any

from celery.utils import debug
from celery.utils.log import get_logger
from celery.worker.control.panel import inspect_command

__all__ = ("memdump", "memsample", "objgraph")

logger = get_logger(__name__)


@inspect_command(
    default_timeout=60.0,
    args=[("type", str), ("num", int), ("max_depth", int)],
    signature="[object_type=Request] [num=200 [max_depth=10]]",
)
def objgraph(state: Any, num: int = 200, max_depth: int = 10, type: str = "Request") -> dict[str, Any]:
    """Draw what refers to the objects of a type, into a PNG file."""
    try:
        import objgraph as graphs
    except ImportError:
        raise ImportError("Requires the objgraph library") from None
    logger.info("Dumping graph for type %r", type)
    with tempfile.NamedTemporaryFile(prefix="cobjg", suffix=".png", delete=False) as file:
        objects = graphs.by_type(type)[: int(num)]
        graphs.show_backrefs(objects, max_depth=int(max_depth), filename=file.name)
        return {"filename": file.name}


@inspect_command()
def memsample(state: Any, **kwargs: Any) -> str | None:
    """Take a sample of the memory in use."""
    size: str | None = debug.sample_mem()
    return size


@inspect_command(args=[("samples", int)], signature="[n_samples=10]")
def memdump(state: Any, samples: int = 10, **kwargs: Any) -> str:
    """Show the samples taken so far."""
    out = io.StringIO()
    debug.memdump(samples=samples, file=out)
    return out.getvalue()

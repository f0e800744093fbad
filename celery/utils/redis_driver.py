"""What redis-py's connections say of themselves to the server, found out once.

redis-py reads its version from the metadata of its distribution for each connection: a millisecond, and a megabyte of
memory that parent and children would share otherwise.
"""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ("driver_arguments",)


@cache
def driver_arguments() -> dict[str, Any]:
    """Return the arguments of a connection that name redis-py and its version."""
    from inspect import signature

    from redis import __version__
    from redis.connection import AbstractConnection

    known = signature(AbstractConnection.__init__).parameters
    if "driver_info" in known:  # redis-py 8
        from redis.driver_info import DriverInfo

        return {"driver_info": DriverInfo(name="redis-py", lib_version=__version__)}
    return {"lib_version": __version__} if "lib_version" in known else {}

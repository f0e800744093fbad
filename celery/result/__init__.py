"""Handles on results: one task, a set, a group, an eager call."""

from celery.result.base import ResultBase
from celery.result.eager import EagerResult
from celery.result.group import GroupResult, ResultSet
from celery.result.joining import allow_join_result, assert_will_not_block, denied_join_result
from celery.result.single import AsyncResult
from celery.result.tuples import result_from_tuple

__all__ = (
    "ResultBase",
    "AsyncResult",
    "ResultSet",
    "GroupResult",
    "EagerResult",
    "result_from_tuple",
)

for _name in (AsyncResult, EagerResult, GroupResult, ResultBase, ResultSet, result_from_tuple, allow_join_result,
              assert_will_not_block, denied_join_result):  # fmt: skip
    _name.__module__ = __name__  # pickles and reprs name the door
del _name

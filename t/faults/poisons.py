"""F20: what must be known of a task that was set aside because it killed what ran it, on any broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from messages import stored_result


def check_reasons(poisons: Mapping[str, tuple[str, str]], reasons: Mapping[str, str], count: str, results: Any) -> None:
    """Check of each poison, told by its name and cause, that its reason names ``count`` and cause, and that it failed."""
    for task_id, (name, cause) in poisons.items():
        assert task_id in reasons, f"{name} was not set aside"
        assert count in reasons[task_id], f"{name}: {reasons[task_id]}"
        assert cause in reasons[task_id], f"{name}: {cause!r} is not in {reasons[task_id]!r}"
        record = stored_result(results, task_id, 2)
        assert record is not None, f"{name}: no state stored"
        assert record["status"] == "FAILURE", record
        assert record["result"]["exc_type"] == "WorkerLostError", record

"""What a process holds of a Redis broker, at the end of the process."""

from __future__ import annotations

import pytest

from celery.utils import deadlines

pytest.importorskip("redis")

from celery.transports.redis import lease as leases


@pytest.mark.parametrize("is_cut_off", [False, True])
def test_the_last_acknowledgements_have_a_deadline_where_the_connection_was_lost_before(monkeypatch, is_cut_off):
    deadlines_seen = []

    class Client:
        def eval(self, *arguments):
            deadlines_seen.append(deadlines.current.ends_at)

    lease = leases.Lease(Client, "unacked", "unacked_index")
    lease.acks.append(f"{lease.prefix}1")
    lease.is_cut_off = is_cut_off
    monkeypatch.setattr(leases, "_leases", {"broker": lease})
    leases._at_exit()

    assert [each is not None for each in deadlines_seen] == [is_cut_off]

"""Workers of both implementations on one queue share its work, and each task is done once."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]
COUNT = 500


@pytest.fixture(params=["ours", "theirs"])
def client(request, scene):
    for worker in scene.workers.values():
        worker.wait_until_ready()
    return scene.client(request.param, "theirs" if request.param == "ours" else "ours")


@pytest.mark.parametrize("scene", ["redis", "rabbitmq"], indirect=True)
def test_each_of_500_tasks_is_done_once_by_one_of_both(scene, client):
    found = client.do("fleet", scene.fleet, COUNT)

    assert found["wrong"] == []
    numbers = [number for ran in found["ran"].values() for number in ran]
    assert sorted(numbers) == list(range(COUNT))
    assert sorted(found["ran"]) == sorted(scene.worker(side) for side in ("ours", "theirs"))
    assert min(map(len, found["ran"].values())) >= COUNT // 20


@pytest.mark.parametrize("scene", ["redis", "rabbitmq", "database"], indirect=True)
def test_a_chord_is_counted_by_both_and_its_body_runs(scene, client):
    value_is_right, ran_on, times = client.do("fleet_chord", scene.fleet, 40)

    assert value_is_right
    assert times == 40
    assert ran_on == sorted(scene.worker(side) for side in ("ours", "theirs"))


@pytest.mark.parametrize("scene", ["redis", "rabbitmq"], indirect=True)
def test_long_workflows_hop_between_both(scene, client):
    assert client.do("fleet_workflow", scene.fleet) is True


@pytest.mark.parametrize("scene", ["redis", "rabbitmq"], indirect=True)
def test_chords_that_fail_end_once_whoever_does_the_parts(scene, client):
    assert client.do("fleet_failing_chord", scene.fleet, 10) == [True, [1] * 10]

"""What is due, by a clock that the test turns."""

from __future__ import annotations

from kombu.asynchronous import Hub

from celery.concurrency.agenda import Agenda


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_actions_are_called_in_the_order_of_their_times():
    clock, called = Clock(), []
    agenda = Agenda(clock)
    for seconds in (3, 1, 2):
        agenda.after(seconds, lambda seconds=seconds: called.append(seconds))
    clock.now += 2
    agenda.run_due()

    assert called == [1, 2]
    assert agenda.seconds_left() == 1


def test_nothing_is_left_of_an_empty_agenda():
    agenda = Agenda(Clock())
    agenda.after(1, print)
    agenda.clear()

    assert agenda.seconds_left() is None


def test_a_hub_has_few_timers_however_many_actions_there_are():
    hub, called = Hub(), []
    agenda = Agenda()
    agenda.use(hub)
    agenda.after(300, lambda: None)
    loop = hub.create_loop()
    for n in range(50):
        agenda.after(0, lambda n=n: called.append(n))
        agenda.after(300 + n, lambda: None)
        while len(called) <= n:
            next(loop)

    assert len(hub.timer._queue) == 1
    assert called == list(range(50))
    hub.close()


def test_a_hub_that_is_used_again_does_not_get_the_same_timer_twice():
    hub = Hub()
    agenda = Agenda()
    agenda.after(10, lambda: None)
    for _ in range(3):
        agenda.use(hub)

    assert len(hub.timer._queue) == 1
    hub.close()


def test_an_action_that_fails_does_not_take_the_others_with_it():
    hub, called = Hub(), []
    agenda = Agenda()
    agenda.use(hub)
    agenda.after(0, lambda: 1 // 0)
    agenda.after(0, lambda: called.append("second"))
    loop = hub.create_loop()
    while not called:
        next(loop)
    hub.close()

"""django-celery-beat, unmodified: entries in the database are sent, and changes of them followed."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("django_celery_beat")

MAKE = """
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from django.utils import timezone

second, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
year, _ = CrontabSchedule.objects.get_or_create(minute="0", hour="4", day_of_month="1", month_of_year="1", timezone="Asia/Tokyo")
past, _ = ClockedSchedule.objects.get_or_create(clocked_time=timezone.now())
PeriodicTask.objects.create(name="close", task="shop.tasks.close_priced_orders", interval=second)
PeriodicTask.objects.create(name="yearly", task="shop.tasks.close_priced_orders", crontab=year)
PeriodicTask.objects.create(name="once", task="shop.tasks.close_priced_orders", clocked=past, one_off=True)
PeriodicTask.objects.create(name="off", task="shop.tasks.close_priced_orders", interval=second, enabled=False)
"""

CHANGE = """
from django_celery_beat.models import PeriodicTask

close = PeriodicTask.objects.get(name="close")
close.enabled = False
close.save()
other = PeriodicTask.objects.get(name="off")
other.enabled = True
other.save()
"""

SHOW = """
from django_celery_beat.models import PeriodicTask

print({task.name: (task.enabled, task.total_run_count) for task in PeriodicTask.objects.all()})
"""


def sent(text: str, name: str) -> int:
    return len(re.findall(rf"Sending due task {name} \(", text))


@pytest.fixture
def shop(open_site):
    shop = open_site("django")
    shop.run("manage.py", "migrate", "--verbosity", "0")
    shop.run("manage.py", "shell", "-c", MAKE)
    return shop


def start_beat(shop, *options, **kwargs):
    return shop.start("-m", "celery", "-A", "proj", "beat", "-l", "INFO", "--max-interval", "1", *options, **kwargs)


def test_entries_of_the_database_are_sent_and_changes_are_followed_and_counted(shop):
    shop.start("-m", "celery", "-A", "proj", "worker", "-l", "INFO", "-P", "solo", until=" ready.")
    log = start_beat(shop, until="Sending due task close (shop.tasks.close_priced_orders)")
    assert ". scheduler -> django_celery_beat.schedulers.DatabaseScheduler" in log.read_text()

    shop.serve("manage.py", "runserver", "--noreload", "{port}", until="Quit the server")
    assert shop.ask("/orders/", {"item": "pear", "count": 3})[0] == 201
    shop.eventually(lambda: shop.ask("/orders/1/")[1]["open"] is False)
    shop.eventually(lambda: sent(log.read_text(), "once") == 1)

    shop.run("manage.py", "shell", "-c", CHANGE)
    shop.eventually(lambda: sent(log.read_text(), "off") >= 2)
    closed = sent(log.read_text(), "close")
    off = sent(log.read_text(), "off")
    shop.eventually(lambda: sent(log.read_text(), "off") >= off + 2)
    text = log.read_text()
    assert sent(text, "close") == closed
    assert sent(text, "once") == 1
    assert sent(text, "yearly") == 0
    assert "Traceback" not in text
    assert "ERROR" not in text

    process = next(process for process, file in shop.running if file == log)
    process.terminate()
    assert process.wait(timeout=30) == 0
    counts = shop.run("manage.py", "shell", "-c", SHOW)
    assert f"'close': (False, {closed})" in counts
    assert f"'off': (True, {sent(log.read_text(), 'off')})" in counts
    assert "'once': (False, " in counts


def test_of_two_beats_with_a_lease_one_sends(shop, tmp_path):
    settings = shop.directory / "proj" / "settings.py"
    settings.write_text(
        settings.read_text()
        + f'\nCELERY_BEAT_LEADER_LEASE = 2\nCELERY_BEAT_LEADER_URL = "db+sqlite:///{tmp_path}/lease.sqlite"\n'
    )
    start_beat(shop, until="Sending due task close (")
    second = start_beat(shop, until="beat: Standing by, ")
    first, _ = shop.running[0]
    assert sent(second.read_text(), "close") == 0
    first.kill()
    first.wait()
    shop.running.pop(0)
    shop.eventually(lambda: sent(second.read_text(), "close") >= 2)
    assert "beat: Leading now, as number 2." in second.read_text()
    assert "Traceback" not in second.read_text()

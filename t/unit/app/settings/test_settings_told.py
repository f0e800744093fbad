"""The documentation tells what every setting means."""

from __future__ import annotations

import configparser
from pathlib import Path

from celery.app.settings.table import OPTIONS

SENTENCES = Path(__file__).parents[4] / "docs" / "reference" / "settings.ini"


def test_every_setting_has_a_sentence_in_the_reference():
    parser = configparser.RawConfigParser()
    parser.read_string(SENTENCES.read_text())
    assert {name for title in parser.sections() for name in parser.options(title)} == set(OPTIONS)

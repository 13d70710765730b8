"""The table of settings in deploy/SETTINGS.md: complete, and as the settings are now."""

import re
import subprocess
import sys

from feed.settings.settings import variables
from tests.processes import ROOT

FILE = ROOT / "deploy" / "SETTINGS.md"


def test_the_table_of_settings_is_up_to_date() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "feed.settings"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert FILE.read_text() == printed.stdout, "run: python -m feed.settings > deploy/SETTINGS.md"


def test_every_setting_has_a_row_with_a_default_and_a_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)`.*? \| (.+?) \| (.+?) \|$", FILE.read_text(), re.MULTILINE)
    assert [name for name, _, _ in rows] == list(variables())
    assert all(meaning.endswith(".") for _, _, meaning in rows)

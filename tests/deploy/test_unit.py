"""The systemd unit: what systemd itself says of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.fronts import program
from tests.processes import ROOT

UNIT = ROOT / "deploy" / "feed.service"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that exists here."""
    text = UNIT.read_text()
    assert "\nExecStart=/opt/feed/bin/feed serve\n" in text
    feed = shutil.which("feed", path=str(Path(sys.executable).parent))
    assert feed
    file = tmp_path / "feed.service"
    file.write_text(text.replace("/opt/feed/bin/feed", feed))
    return file


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("systemd-analyze"), "--no-pager", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_systemd_understands_every_line(unit: Path) -> None:
    verdict = analyze("verify", "--man=no", str(unit))
    # It tells of other units of the machine too.
    assert "feed.service" not in verdict.stdout + verdict.stderr
    assert verdict.returncode == 0, verdict.stderr


def test_its_exposure_is_low(unit: Path) -> None:
    verdict = analyze("security", "--offline=true", "--threshold=20", str(unit))
    assert verdict.returncode == 0, verdict.stdout

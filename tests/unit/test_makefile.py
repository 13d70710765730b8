"""`make tools` installs what tests skip without."""

import re

import pytest

from tests.processes import ROOT

ADVISED = re.compile(r"apt-get install ([a-z0-9-]+)")


def advised() -> set[str]:
    """The packages that the reasons of skipped tests name."""
    return {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in ADVISED.findall(file.read_text("utf-8"))
    } - {"postgresql-client"}  # which is what feed advises its users


def test_reasons_name_packages() -> None:
    assert "pgbouncer" in advised()


@pytest.mark.parametrize("package", sorted(advised()))
def test_a_package_that_a_test_skips_without_is_one_of_the_tools(package: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"\$\$\(need \S+ '?{package}\b", makefile), f"make tools does not install {package}"

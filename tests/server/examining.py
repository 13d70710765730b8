"""What the doctor finds in a database, asked without a process."""

from typing import Any

from feed.doctor.database import examine_database
from feed.doctor.finding import Finding
from tests.conftest import make_settings


async def examined(dsn: str, **settings: Any) -> dict[str, list[Finding]]:
    """The findings about a database, by check."""
    findings: dict[str, list[Finding]] = {}
    async for finding in examine_database(make_settings(dsn, **settings), dsn):
        findings.setdefault(finding.check, []).append(finding)
    return findings

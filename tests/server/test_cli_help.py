"""What `feed` says of itself, without importing what its commands need."""

import importlib
import inspect
import os
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE

import pytest

from feed.cli.main import COMMANDS
from tests.processes import ROOT

HEAVY = {"asyncpg", "cryptography", "fastapi", "hypercorn", "httpx", "pydantic", "structlog"}


async def feed(*arguments: str) -> tuple[int | None, str, str]:
    """Run `feed` and note its imports on stderr; its exit code, stdout and stderr."""
    process = await create_subprocess_exec(
        sys.executable, "-X", "importtime", "-m", "feed", *arguments, cwd=ROOT, stdout=PIPE, stderr=PIPE,
        env=os.environ | {"COLUMNS": "120"},
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
async def test_help_and_version_import_nothing_that_only_the_commands_need(arguments: list[str]) -> None:
    code, _, err = await feed(*arguments)
    imported = {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time:")}
    assert code == 0
    assert "feed.cli.main" in imported
    assert imported & HEAVY == set()
    assert {name for name in imported if name.startswith("feed.")} <= {
        "feed.cli", "feed.cli.main", "feed.cli.messages", "feed.errors",
    }  # fmt: skip


async def test_help_shows_one_line_for_each_command() -> None:
    _, out, _ = await feed("--help")
    shown = [" ".join(line.split()) for line in out.splitlines()]
    for name, line in COMMANDS.items():
        assert f"{name} {line}" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_help_is_the_first_line_of_the_commands_own(name: str) -> None:
    module = importlib.import_module(f"feed.cli.{name}")
    group = getattr(module, "app", None)
    if group is None:
        own = inspect.getdoc(getattr(module, name))
    else:
        own = group.info.help or inspect.getdoc(group.registered_callback.callback)
    assert (own or "").splitlines()[0] == COMMANDS[name]

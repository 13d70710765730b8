"""An address that is no feed's: every client command ends with exit code 3 and one clear line."""

from asyncio.subprocess import PIPE

import pytest

from tests.server.scripted import Answer, Script, feed, running

CLIENTS = [("tail",), ("top",), ("post", "-", "--url")]
PAGE = Answer(b"<html>", 404, "text/html")


async def told(*arguments: str) -> tuple[int | None, str]:
    """Run a command of `feed` on one posting from stdin; its exit code and stderr."""
    async with feed(*arguments, stdin=PIPE) as process:
        out, err = await process.communicate(b'{"title":"a"}\n')
        assert out == b""
        return process.returncode, err.decode()


@pytest.mark.parametrize("command", CLIENTS)
async def test_tls_to_a_plain_port(command: tuple[str, ...]) -> None:
    async with running(Script()) as url:
        code, err = await told(*command, url.replace("http:", "https:"))
    assert code == 3
    assert "write http://" in err.splitlines()[-1]
    assert "trying again" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", CLIENTS)
async def test_a_web_server_that_is_no_feed(command: tuple[str, ...]) -> None:
    async with running(Script(PAGE)) as url:
        code, err = await told(*command, url)
    assert code == 3
    assert err.splitlines()[-1].endswith("answered 404: Not Found. Is this the address of a feed?")
    assert "trying again" not in err
    assert "Traceback" not in err


async def test_the_doctor_finds_both() -> None:
    async with running(Script(PAGE)) as url:
        for address, word in ((url, "Is this the address of a feed?"), (url.replace("http:", "https:"), "Try http://")):
            async with feed("doctor", address) as process:
                out, err = await process.communicate()
            assert (process.returncode, err) == (1, b"")
            assert word in " ".join(out.decode().split())

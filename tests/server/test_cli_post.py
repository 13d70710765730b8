"""`feed post` as a process, against a server that follows a script."""

import json
import re
import signal
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from tests.server.scripted import Answer, Script, counts, feed, problem, running


async def post(*arguments: str, stdin: bytes | None = None) -> tuple[int | None, str, str]:
    """Run `feed post` to its end; returns its exit code, stdout and stderr."""
    async with feed("post", *arguments, stdin=PIPE) as process:
        out, err = await process.communicate(stdin)
        return process.returncode, out.decode(), err.decode()


def lines_of(script: Script) -> list[list[dict[str, Any]]]:
    """Return the postings of each request."""
    return [[json.loads(line) for line in request.body.splitlines()] for request in script.requests]


def good(title: str, **more: Any) -> str:
    """JSON of a posting that no server refuses."""
    return json.dumps({"external_id": title, "title": title, "company": "c", "url": "https://a.example"} | more)


def ndjson(*titles: str) -> bytes:
    return b"".join(b'{"external_id":"%s","title":"%s"}\n' % (t.encode(), t.encode()) for t in titles)


async def test_ndjson_from_a_pipe_is_posted_in_batches() -> None:
    script = Script(counts(created=2), counts(created=2), counts(updated=1))
    async with running(script) as url:
        code, out, err = await post("-", "--url", url, "--batch", "2", stdin=ndjson(*"abcde"))
    assert (code, out, err) == (0, "4 created, 1 updated, 0 unchanged, 0 rejected\n", "")
    assert [[posting["title"] for posting in batch] for batch in lines_of(script)] == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize("form", ["[%s, %s]", "%s\n%s"])
async def test_a_file_is_posted_whatever_its_form(tmp_path: Path, form: str) -> None:
    file = tmp_path / "jobs"
    file.write_text(form % (good("a"), good("b")))
    script = Script(counts(created=2))
    async with running(script) as url:
        code, _, _ = await post(str(file), "--url", url)
    assert code == 0
    assert [posting["title"] for posting in lines_of(script)[0]] == ["a", "b"]


async def test_a_record_without_external_id_gets_the_same_one_every_time() -> None:
    script = Script(counts(created=2), counts(unchanged=2))
    async with running(script) as url:
        await post("-", "--url", url, stdin=b'{"title":"a","company":"c"}\n{"title":"b"}\n')
        await post("-", "--url", url, stdin=b'{"company":"c","external_id":null,"title":"a"}\n{"title":"b"}\n')
    first, second = [[posting["external_id"] for posting in batch] for batch in lines_of(script)]
    assert first == second
    assert len(set(first)) == 2
    assert all(re.fullmatch("sha256-[0-9a-f]{20}", name) for name in first)


async def test_the_same_posting_twice_goes_into_two_batches() -> None:
    script = Script(counts(created=2), counts(updated=1))
    async with running(script) as url:
        code, out, _ = await post("-", "--url", url, stdin=ndjson("a", "b", "a"))
    assert (code, len(script.requests)) == (0, 2)
    assert out.startswith("2 created, 1 updated")


async def test_a_pipe_that_pauses_has_its_postings_posted_at_once() -> None:
    script = Script(counts(created=1), counts(created=1))
    async with running(script) as url, feed("post", "-", "--url", url, stdin=PIPE) as process:
        assert process.stdin
        process.stdin.write(ndjson("a"))
        await script.asked.wait()
        out, _ = await process.communicate(ndjson("b"))
    assert out == b"2 created, 0 updated, 0 unchanged, 0 rejected\n"


async def test_records_the_server_refuses_are_named_by_line_and_the_others_written(tmp_path: Path) -> None:
    script = Script(
        problem(
            422,
            {"index": 1, "field": "title", "message": "is required"},
            {"index": 1, "field": "url", "message": "must be a URL"},
        ),
        problem(422, {"index": 1, "field": "company", "message": "must not be blank"}),
        counts(created=1),
    )
    async with running(script) as url:
        stdin = b'{"title":"a"}\n{"x":1}\n\n{oops\n{"title":"c"}\n'
        code, out, err = await post("-", "--url", url, "--skip-bad", "--bad", str(tmp_path / "bad"), stdin=stdin)
    assert code == 1
    assert out == "1 created, 0 updated, 0 unchanged, 3 rejected\n"
    assert err.splitlines()[1:] == [
        "feed: line 2: title: is required",
        "feed: line 2: url: must be a URL",
        "feed: line 5: company: must not be blank",
        f"feed: 3 bad records are in {tmp_path / 'bad'}",
    ]
    assert err.startswith("feed: line 4: record: is not valid JSON")


async def test_foreign_records_are_mapped(tmp_path: Path) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text(
        '[where]\nactive = true\n[posting]\nsource = { value = "s" }\nexternal_id = "id"\ntitle = "name"\n'
        'company = "company.name"\nurl = "url"\nposted_at = { from = "at", as = "epoch_s" }\n'
    )
    records = [
        {"id": 1, "name": "A", "company": {"name": "C"}, "url": "u", "at": 0, "active": True},
        {"id": 2, "active": False},
        {"id": 3, "at": "soon", "active": True},
    ]
    script = Script(counts(created=1))
    async with running(script) as url:
        skip = ("--skip-bad", "--bad", str(tmp_path / "bad"))
        code, out, err = await post("-", "--map", str(mapping), "--url", url, *skip, stdin=json.dumps(records).encode())
    assert (code, out) == (1, "1 created, 0 updated, 0 unchanged, 1 rejected, 1 skipped\n")
    fault = {"field": "posted_at", "message": "'soon' is not a time in seconds since 1970"}
    assert err.splitlines()[0] == f"feed: item 3: posted_at: {fault['message']}"
    assert json.loads((tmp_path / "bad").read_text()) == {"item": 3, "faults": [fault], "record": records[2]}
    expected = {"source": "s", "external_id": "1", "title": "A", "company": "C", "url": "u"}
    assert lines_of(script) == [[{**expected, "posted_at": "1970-01-01T00:00:00Z"}]]


async def test_of_many_faults_of_one_kind_the_first_are_told_and_a_mapping_is_advised(tmp_path: Path) -> None:
    answers = [
        problem(
            422,
            {"index": 0, "field": "url", "message": "is required"},
            {"index": 0, "field": f"field_{n}", "message": "is no field of a posting that can be written"},
        )
        for n in range(25)
    ]
    async with running(Script(*answers)) as url:
        stdin = b"".join(b'{"field_%d":1}\n' % n for n in range(25))
        skip = ("--skip-bad", "--bad", str(tmp_path / "bad"))
        code, out, err = await post("-", "--url", url, "--batch", "1", *skip, stdin=stdin)
    assert (code, out) == (1, "0 created, 0 updated, 0 unchanged, 25 rejected\n")
    told = err.splitlines()[:-1]
    assert len(told) == 43
    assert told[39] == "feed: line 20: field_19: is no field of a posting that can be written"
    assert told[40] == 'feed: 5 more faults of the kind "is required" are not shown.'
    assert told[41].startswith('feed: 5 more faults of the kind "is no field')
    assert "--map" in told[42]
    assert Path(told[42].rpartition(" ")[2]).name == "simplify.toml"
    assert Path(told[42].rpartition(" ")[2]).exists()


async def test_values_do_not_make_a_kind_of_fault(tmp_path: Path) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text(
        '[posting]\ntitle = "t"\ncompany = "c"\nurl = "u"\nposted_at = { from = "at", as = "epoch_s" }\n'
    )
    stdin = b"".join(b'{"at":"day %d"}\n' % n for n in range(30))
    async with running(Script()) as url:
        skip = ("--skip-bad", "--bad", str(tmp_path / "bad"))
        code, _, err = await post("-", "--url", url, "--map", str(mapping), *skip, stdin=stdin)
    assert code == 1
    assert len(err.splitlines()) == 22
    assert "10 more faults" in err.splitlines()[-2]
    assert "--map" not in err


async def test_a_server_that_is_away_is_tried_again() -> None:
    script = Script(problem(503, retry_after="0"), problem(429, retry_after="0"), counts(created=1))
    async with running(script) as url:
        code, out, err = await post("-", "--url", url, stdin=ndjson("a"))
    assert (code, out[:9]) == (0, "1 created")
    assert err.count("trying again in") == 2
    assert len({request.body for request in script.requests}) == 1


async def test_no_server_is_exit_code_3_and_one_clear_line() -> None:
    async with running(Script()) as url:
        pass
    code, out, err = await post("-", "--url", url, "--retries", "0", stdin=ndjson("a"))
    assert (code, out) == (3, "")
    assert url in err
    assert "Traceback" not in err


async def test_what_is_no_feed_is_exit_code_3() -> None:
    async with running(Script(Answer(b"<html>", content_type="text/html"))) as url:
        code, _, err = await post("-", "--url", url, stdin=ndjson("a"))
    assert code == 3
    assert "Traceback" not in err


async def test_a_server_that_refuses_everything_ends_the_run_at_once() -> None:
    script = Script(problem(401))
    async with running(script) as url:
        code, _, err = await post("-", "--url", url, "--batch", "1", stdin=ndjson("a", "b"))
    assert (code, len(script.requests)) == (1, 1)
    assert "401" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere.json"], "nowhere.json"),
        (["."], "cannot read"),
        (["-", "--map", "nowhere.toml"], "nowhere.toml"),
        (["-", "--url", "localhost:8000"], "localhost:8000"),
        (["-", "--url", "http://a", "--database-url", "postgresql://b"], "two targets"),
        (["-", "--batch", "0"], "--batch"),
        (["-", "--bad", "x"], "--skip-bad"),
        (["-", "--skip-bad", "--bad", "."], "cannot write"),
        (["/dev/null", "--skip-bad", "--bad", "/dev/null"], "which is the input"),
        ([], "file"),
    ],
)
async def test_a_wrong_command_is_exit_code_2(arguments: list[str], complaint: str) -> None:
    code, out, err = await post(*arguments, stdin=ndjson("a"))
    assert (code, out) == (2, "")
    assert complaint in err
    assert "Traceback" not in err


async def test_an_input_that_is_no_json_is_exit_code_1() -> None:
    code, _, err = await post("-", stdin=b"<html>")
    assert code == 1
    assert "neither JSON nor NDJSON" in err


async def test_ctrl_c_says_how_far_it_came() -> None:
    script = Script(counts(created=1))
    async with running(script) as url, feed("post", "-", "--url", url, stdin=PIPE) as process:
        assert process.stdin
        process.stdin.write(ndjson("a"))
        await script.asked.wait()
        process.send_signal(signal.SIGINT)
        code = await process.wait()
        assert process.stderr
        err = (await process.stderr.read()).decode()
    assert code == 130
    assert "interrupted" in err
    assert "Traceback" not in err


async def test_help_shows_examples_and_exit_codes() -> None:
    code, out, _ = await post("--help")
    assert code == 0
    assert "Examples:" in out
    assert "Exit codes:" in out


async def test_a_key_is_sent_with_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEED_KEY", "feedkey_x")
    script = Script(counts(created=1), counts(created=1))
    async with running(script) as url:
        code, _, err = await post("-", "--url", url, "--batch", "1", stdin=ndjson("a", "b"))
    assert code == 0, err
    assert [request.headers["authorization"] for request in script.requests] == ["Bearer feedkey_x"] * 2


@pytest.mark.parametrize(("status", "advice"), [(401, "--key or in FEED_KEY"), (403, "a key of another scope")])
async def test_a_key_that_may_not_write_is_exit_code_1_and_tried_once(status: int, advice: str) -> None:
    script = Script(problem(status))
    async with running(script) as url:
        code, _, err = await post("-", "--url", url, stdin=ndjson("a"))
    assert code == 1
    assert advice in err.splitlines()[-1]
    assert len(script.requests) == 1

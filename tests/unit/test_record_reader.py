"""Records are told apart in files and pipes, JSON and NDJSON, without holding more than a line."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from feed.cli import record_reader
from feed.cli.record_reader import Record, RecordReader, UnreadableInput


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


async def read(path: Path, text: str | bytes) -> list[Record]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with path.open("rb", 0) as file:
        return [record async for record in RecordReader(file.fileno()) if record]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "input"


async def test_ndjson_is_read_line_by_line(path: Path) -> None:
    found = await read(path, '{"a":1}\n\n  {"a":2}\r\n{"a":3}')
    assert found == [Record("line 1", {"a": 1}), Record("line 3", {"a": 2}), Record("line 4", {"a": 3})]


@pytest.mark.parametrize("text", ['[{"a":1},{"a":2}]', '\n [\n{"a":1},\n{"a":2}\n]\n', '\ufeff[{"a":1},{"a":2}]'])
async def test_an_array_is_read_item_by_item(path: Path, text: str) -> None:
    assert await read(path, text) == [Record("item 1", {"a": 1}), Record("item 2", {"a": 2})]


@pytest.mark.parametrize("text", ['{"a":1}', '{\n  "a": 1\n}\n', '\ufeff{"a":\n1}'])
async def test_one_object_is_one_record(path: Path, text: str) -> None:
    assert [record.value for record in await read(path, text)] == [{"a": 1}]


async def test_a_line_that_is_no_object_is_named_and_the_others_are_read(path: Path) -> None:
    found = await read(path, '{"a":1}\n{"a":\n[1]\n"x"\n{"a":5}\n')
    assert [record.place for record in found if record.fault] == ["line 2", "line 3", "line 4"]
    assert [record.value for record in found if not record.fault] == [{"a": 1}, {"a": 5}]


@pytest.mark.parametrize("first", ['{"a": oops}', '{"a":'])
async def test_a_broken_first_line_does_not_hide_the_others(path: Path, first: str) -> None:
    found = await read(path, first + '\n{"a":2}\n')
    assert [record.value for record in found] == [None, {"a": 2}]
    assert found[0].place == "line 1"


async def test_items_of_an_array_that_are_no_objects_are_named(path: Path) -> None:
    assert [record.fault for record in await read(path, '[1, {"a":2}]')] == ["is not a JSON object", ""]


@pytest.mark.parametrize("text", ["<html>", "[{]", "title,company\n1,2\n", b"\xff\xfe{"])
async def test_what_is_neither_is_refused_as_a_whole(path: Path, text: str | bytes) -> None:
    with pytest.raises(UnreadableInput):
        await read(path, text)


async def test_an_empty_input_has_no_records(path: Path) -> None:
    assert await read(path, "") == await read(path, " \n\n") == []


async def test_a_line_that_is_too_long_is_named_and_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_reader, "_LONGEST_LINE", 100)
    monkeypatch.setattr(record_reader, "_CHUNK", 64)
    found = await read(path, '{"a":1}\n{"a":"' + "x" * 5000 + '"}\n{"a":3}\n')
    assert [(record.place, bool(record.fault)) for record in found] == [
        ("line 1", False),
        ("line 2", True),
        ("line 3", False),
    ]


async def test_lines_are_whole_however_the_chunks_fall(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_reader, "_CHUNK", 3)
    found = await read(path, "".join(f'{{"a":{n}}}\n' for n in range(50)))
    assert [record.value for record in found] == [{"a": n} for n in range(50)]


async def test_a_pipe_that_pauses_says_so_once_and_goes_on(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b'{"a":1}\n{"a":')
    found = aiter(RecordReader(reading))
    assert await anext(found) == Record("line 1", {"a": 1})
    assert await anext(found) is None
    following = asyncio.ensure_future(anext(found))
    os.write(writing, b"2}\n")
    assert await following == Record("line 2", {"a": 2})
    os.close(writing)
    assert [record async for record in found if record] == []


async def test_reading_a_file_shows_how_far_it_is(path: Path) -> None:
    path.write_text('{"a":1}\n{"a":2}\n')
    with path.open("rb", 0) as file:
        reader = RecordReader(file.fileno())
        done = [reader.done async for _ in reader]
    assert (done, reader.total) == ([8, 16], 16)

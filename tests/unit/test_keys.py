"""Keys that were looked up: remembered for a little while, longer while the database is away, and ended at once."""

import asyncio
import time
from dataclasses import replace

import pytest

from feed.access import key as module
from feed.access.grant import Scope
from feed.access.key import Key, new_key
from feed.access.keys import KeyRecord, Keys
from feed.errors import DatabaseUnavailable, Unauthorized


class Table:
    """Where keys are kept; `away` makes it a database that does not answer."""

    def __init__(self, *records: KeyRecord) -> None:
        self.records = {one.id: one for one in records}
        self.looks: list[str] = []
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def key(self, identity: str) -> KeyRecord | None:
        self.looks.append(identity)
        await self.gate.wait()
        if self.away:
            raise DatabaseUnavailable("away")
        return self.records.get(identity)


class Clock:
    """The event loop's time, moved on by the test."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


def record(key: Key, scope: Scope = Scope.READ, **more: object) -> KeyRecord:
    return replace(KeyRecord(key.id, key.digest, scope, created_at=1.0), **more)  # type: ignore[arg-type]


async def test_a_key_stands_for_what_the_database_says_of_it() -> None:
    key = new_key()
    ends = time.time() + 60
    keys = Keys(Table(record(key, Scope.WRITE, filter="company=acme", max_streams=3, expires_at=ends)), 5)
    grant = await keys.grant(key.text)
    assert grant.name == f"key:{key.id}"
    assert grant.scopes == {Scope.READ, Scope.WRITE}
    assert (grant.filter.company, grant.filter_text) == (("acme",), "company=acme")
    assert (grant.max_streams, grant.expires_at) == (3, ends)
    assert key.text not in repr(grant)


@pytest.mark.parametrize(
    ("scope", "good_for"),
    [
        (Scope.READ, {Scope.READ}), (Scope.WRITE, {Scope.READ, Scope.WRITE}), (Scope.METRICS, {Scope.METRICS}),
        (Scope.ADMIN, set(Scope)),
    ],
)  # fmt: skip
async def test_write_implies_read_and_admin_everything(scope: Scope, good_for: set[Scope]) -> None:
    key = new_key()
    grant = await Keys(Table(record(key, scope)), 5).grant(key.text)
    assert {one for one in Scope if grant.allows(one)} == good_for


async def test_a_slip_is_refused_without_asking_the_database() -> None:
    key = new_key()
    table = Table(record(key))
    keys = Keys(table, 5)
    wrong = key.text[:-1] + ("0" if key.text[-1] != "0" else "1")
    for text in (wrong, key.text[:-1], "feedkey_", ""):
        with pytest.raises(Unauthorized):
            await keys.grant(text)
    assert table.looks == []


async def test_the_id_alone_is_not_enough() -> None:
    key = new_key()
    secret = module._random(32)
    forged = f"{module.PREFIX}{key.id}_{secret}{module._checksum(key.id + secret)}"
    assert module.parse_key(forged)
    keys = Keys(Table(record(key)), 5)
    for _ in range(2):  # looked up, and remembered
        with pytest.raises(Unauthorized, match="unknown"):
            await keys.grant(forged)
    assert (await keys.grant(key.text)).name == f"key:{key.id}"


async def test_a_look_is_good_for_a_while_and_then_there_is_another(clock: Clock) -> None:
    key = new_key()
    table = Table(record(key))
    keys = Keys(table, 5)
    for _ in range(3):
        await keys.grant(key.text)
    clock.now += 4.9
    await keys.grant(key.text)
    assert len(table.looks) == 1
    clock.now += 0.2
    table.records[key.id] = record(key, revoked_at=1.0)
    with pytest.raises(Unauthorized, match="revoked"):
        await keys.grant(key.text)
    assert len(table.looks) == 2


async def test_a_key_that_does_not_exist_is_remembered_too(clock: Clock) -> None:
    table = Table()
    keys = Keys(table, 5)
    key = new_key()
    for _ in range(3):
        with pytest.raises(Unauthorized):
            await keys.grant(key.text)
    assert len(table.looks) == 1
    table.records[key.id] = record(key)
    clock.now += 5.1
    assert (await keys.grant(key.text)).name == f"key:{key.id}"


async def test_what_is_forgotten_is_looked_up_again(clock: Clock) -> None:
    key = new_key()
    table = Table(record(key))
    keys = Keys(table, 5)
    await keys.grant(key.text)
    table.records[key.id] = record(key, revoked_at=1.0)
    keys.forget(key.id)
    keys.forget("never seen")
    for _ in range(2):
        with pytest.raises(Unauthorized, match="revoked"):
            await keys.grant(key.text)
        with pytest.raises(Unauthorized, match="revoked"):
            await keys.of_id(key.id)
    assert len(table.looks) == 2


async def test_a_key_expires_while_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    keys = Keys(Table(record(key, expires_at=2_000.0)), 5)
    monkeypatch.setattr(time, "time", lambda: 1_999.0)
    assert (await keys.grant(key.text)).expires_at == 2_000.0
    monkeypatch.setattr(time, "time", lambda: 2_000.0)
    with pytest.raises(Unauthorized, match="expired"):
        await keys.grant(key.text)
    with pytest.raises(Unauthorized, match="expired"):
        await keys.of_id(key.id)


async def test_while_the_database_is_away_known_keys_are_good_for_a_minute(clock: Clock) -> None:
    key, unknown = new_key(), new_key()
    table = Table(record(key), record(unknown))
    keys = Keys(table, 5)
    await keys.grant(key.text)
    table.away = True
    clock.now += 59
    assert (await keys.grant(key.text)).name == f"key:{key.id}"
    with pytest.raises(DatabaseUnavailable):
        await keys.grant(unknown.text)
    clock.now += 2
    with pytest.raises(DatabaseUnavailable):
        await keys.grant(key.text)
    table.away = False
    assert (await keys.grant(key.text)).name == f"key:{key.id}"


async def test_all_who_come_back_at_once_cost_one_look() -> None:
    key = new_key()
    table = Table(record(key))
    keys = Keys(table, 5)
    table.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(keys.grant(key.text)) for _ in range(50)]
        while not table.looks:
            await asyncio.sleep(0)
        table.gate.set()
    assert {task.result().name for task in asking} == {f"key:{key.id}"}
    assert table.looks == [key.id]


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feed.access.keys._MOST", 3)
    made = [new_key() for _ in range(5)]
    table = Table(*map(record, made))
    keys = Keys(table, 5)
    for key in made:
        await keys.grant(key.text)
    await keys.grant(made[-1].text)
    assert len(table.looks) == 5
    await keys.grant(made[0].text)  # the one looked up longest ago was let go
    assert len(table.looks) == 6


async def test_a_revocation_that_comes_during_a_look_is_not_lost() -> None:
    """The look may have read the row from before it: what it found must not be good for another while."""
    key = new_key()
    table = Table(record(key))
    keys = Keys(table, 5)
    before = table.records[key.id]
    table.gate.clear()

    async def slow(identity: str) -> KeyRecord | None:
        table.looks.append(identity)
        await table.gate.wait()
        return before if len(table.looks) == 1 else table.records[identity]

    table.key = slow  # type: ignore[method-assign]
    looking = asyncio.create_task(keys.grant(key.text))
    while not table.looks:
        await asyncio.sleep(0)
    table.records[key.id] = record(key, revoked_at=1.0)
    keys.forget(key.id)
    table.gate.set()
    await asyncio.wait([looking])
    with pytest.raises(Unauthorized, match="revoked"):
        await keys.grant(key.text)

"""The pacer: at once for the few, in order and a few at a time for a herd."""

import asyncio

from feed.wire.pacer import PER_TURN, Pacer


async def test_the_first_few_do_not_wait() -> None:
    pacer = Pacer()
    for _ in range(PER_TURN):
        waiting = pacer.admitted()
        try:
            waiting.send(None)
        except StopIteration:
            continue
        raise AssertionError("it waited")


async def test_a_herd_comes_in_order_and_a_few_in_one_loop_turn() -> None:
    pacer = Pacer()
    came: list[tuple[int, int]] = []
    loop_turn = 0

    async def one(number: int) -> None:
        await pacer.admitted()
        came.append((number, loop_turn))

    tasks = [asyncio.create_task(one(number)) for number in range(10 * PER_TURN)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        loop_turn += 1
    assert [number for number, _ in came] == list(range(10 * PER_TURN))
    in_one = [sum(turn == found for _, turn in came) for found in {turn for _, turn in came}]
    assert max(in_one) <= PER_TURN


async def test_who_gives_up_takes_nobodys_turn() -> None:
    pacer = Pacer()
    tasks = [asyncio.create_task(pacer.admitted()) for _ in range(4 * PER_TURN)]
    await asyncio.sleep(0)
    for task in tasks[PER_TURN : 2 * PER_TURN]:
        task.cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert sum(task.cancelled() for task in tasks) == PER_TURN


async def test_one_that_goes_on_longer_than_a_turn_may_take_lets_others_have_theirs() -> None:
    pacer = Pacer(seconds=1e-9)
    others = 0

    async def live() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(live())
    for _ in range(PER_TURN):
        await pacer.admitted()
    task.cancel()
    assert others >= PER_TURN / 2

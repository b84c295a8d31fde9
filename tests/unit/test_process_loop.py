import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentfarm.process_loop import ProcessLoop


@pytest.fixture
def loop() -> Iterator[ProcessLoop]:
    made = ProcessLoop()
    yield made
    made.close()


async def _running() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_every_coroutine_runs_on_the_same_loop(loop: ProcessLoop) -> None:
    with ThreadPoolExecutor(4) as threads:
        loops = list(threads.map(lambda _: loop.run(_running()), range(20)))

    assert len(set(map(id, loops))) == 1


def test_coroutines_of_several_threads_wait_side_by_side(loop: ProcessLoop) -> None:
    together = threading.Barrier(3)

    async def meet() -> int:
        return await asyncio.to_thread(together.wait, 5)

    with ThreadPoolExecutor(3) as threads:
        places = list(threads.map(lambda _: loop.run(meet()), range(3)))

    assert sorted(places) == [0, 1, 2]


def test_what_a_coroutine_raises_comes_out(loop: ProcessLoop) -> None:
    async def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        loop.run(fail())


def test_a_forked_child_makes_its_own(loop: ProcessLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    parents = loop.run(_running())
    monkeypatch.setattr(os, "getpid", lambda: -1)

    childs = loop.run(_running())

    assert childs is not parents
    loop.close()
    parents.call_soon_threadsafe(parents.stop)

"""A roll-out under load: every process is replaced, one after another, and clients see nothing they cannot retry."""

import time

import pytest

from tests.farm import FarmProcesses, Process, free_port, running, wait_for
from tests.integration.away.load import Load
from tests.integration.away.watchers import Watchers

#: What a client can retry: there was no answer, or one that says when to come back.
MAY_BE_TOLD = {"200", "503", "ConnectError", "ReadError", "RemoteProtocolError", "TransportError"}

#: What an orchestrator waits before it kills.
GRACE_SECONDS = 30.0

LOST = "SELECT count(*) FROM farm.node_execution e, jsonb_array_elements(e.lost_to) l WHERE NOT l ? 'given_back'"


@pytest.mark.filterwarnings("ignore:Request failed, attempting reconnect:UserWarning")  # the SDK tells what it does
@pytest.mark.timeout(400)
def test_every_process_is_replaced_and_nothing_is_lost(farm: FarmProcesses) -> None:
    """The new ones come up beside the old ones, which then end one after another: two webs, four workers, two beats."""
    folder = farm.folder / "new"
    folder.mkdir()
    new = FarmProcesses(farm.environment, folder, farm.admin_dsn, farm.keys, free_port())
    urls = [farm.url, new.url]
    with running(new):
        with Load(farm, urls, clients=2) as load, Watchers(farm, urls) as watchers:
            wait_for(
                lambda: load.acknowledged and len(watchers.seen) == 2, what="runs, streamed and joined", seconds=120
            )

            new.start_all("three", "four")
            ended = {process.name: end(process) for process in farm.processes}

            before, known = watchers.seen.copy(), len(load.acknowledged)
            wait_for(
                lambda: (
                    watchers.wrong  # one that saw something wrong sees no more
                    or (len(load.acknowledged) > known + 2 and all(watchers.seen[how] > before[how] for how in before))
                ),
                what="runs after all was replaced",
                seconds=120,
            )
        last = load.check()

    seconds = {name: f"{took:.1f} s" for name, (_, took) in ended.items()}
    print(f"{seconds}; {len(load.acknowledged)} runs, the last {last:.1f} s after the load ended")  # told, not judged
    print(f"told {dict(load.told)}, slowest {load.slowest:.1f} s; {dict(watchers.seen)} told {dict(watchers.told)}")
    assert {name: code for name, (code, _) in ended.items()} == {"web": 0, "one": 0, "two": 0, "beat": 0}
    assert watchers.wrong == []
    assert set(load.told) | set(watchers.told) <= MAY_BE_TOLD
    assert farm.query(LOST) == [(0,)]


def end(process: Process) -> tuple[int, float]:
    """Its exit code and how long it took."""
    began = time.monotonic()
    return process.stop(seconds=GRACE_SECONDS), time.monotonic() - began

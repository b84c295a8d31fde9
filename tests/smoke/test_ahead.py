"""Workers that go on with a run by themselves, on real brokers: what Flower sees, what a kill and a SIGTERM leave."""

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from pytest_celery import CeleryTestSetup

from agentfarm.flow.farm import Farm
from agentfarm.ids import new_id
from agentfarm.run_options import RunAhead, RunChoices
from tests.farm import wait_for
from tests.services import OwnDatabase
from tests.smoke.conftest import BROKERS
from tests.smoke.nodes import FarmWorker, LocalProcess, PreforkWorker
from tests.smoke.test_workers import Story, begin, process, worker_of

#: The gate takes as long as the test wants it to, and the node after it is still the same message's.
AHEAD = RunChoices(run_ahead=RunAhead(seconds=60.0))


@pytest.fixture
def default_worker_env(default_worker_env: dict[str, str]) -> dict[str, str]:
    return {**default_worker_env, "AGENTFARM_RUN_AHEAD_SECONDS": "60"}


@contextmanager
def going_ahead(farm: Farm, database: OwnDatabase, folder: Path) -> Iterator[Story]:
    with psycopg.connect(database.root_url, autocommit=True) as root:
        yield begin(farm, root, folder, new_id(), AHEAD)


def workers_of(story: Story) -> dict[str, list[str]]:
    """{node: who has begun it, one after the other}: each named by its pid at the end."""
    sql = """SELECT e.node, jsonb_path_query_array(coalesce(e.lost_to, '[]'), '$[*].worker'), w.name
               FROM farm.node_execution e LEFT JOIN farm.worker w USING (worker) WHERE e.run_id = %s"""
    rows = story.root.execute(sql, [story.run_id]).fetchall()
    return {node: [name.rsplit("/", 1)[1] for name in (*lost, last)] for node, lost, last in rows}


def test_a_worker_killed_ahead_of_its_message_loses_the_node_that_it_was_in(
    celery_setup: CeleryTestSetup, healer: LocalProcess, farm: Farm, database: OwnDatabase, tmp_path: Path
) -> None:
    with going_ahead(farm, database, tmp_path) as story:
        (first,) = story.executed_by(1)

        worker_of(celery_setup, first).kill()
        _, second = story.executed_by(2)
        story.release()
        wait_for(story.is_done, what="the end of the run", seconds=60)

        assert story.log() == ["in", "first", "gate", "last"]
        assert story.attempts() == {"first": 1, "gate": 2, "last": 1}
        assert workers_of(story)["first"] == [str(first)]
        assert workers_of(story)["gate"] == [str(first), str(second)]


class Events:
    """What the workers say, as Flower hears it."""

    def __init__(self, app: Celery) -> None:
        self.heard: list[dict[str, Any]] = []
        self._app, self._ending, self._ready = app, threading.Event(), threading.Event()
        self._os_thread = threading.Thread(target=self._listen, daemon=True)
        self._os_thread.start()
        assert self._ready.wait(20)

    def of(self, name: str) -> list[list[dict[str, Any]]]:
        """What was said of each task with this name, in order."""
        heard = list(self.heard)
        uuids = [event["uuid"] for event in heard if event.get("name") == name]
        return [[event for event in heard if event.get("uuid") == uuid] for uuid in uuids]

    def close(self) -> None:
        self._ending.set()
        self._os_thread.join(20)

    def _listen(self) -> None:
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self.heard.append})
            with receiver.consumer_context() as (line, _, _):
                self._ready.set()
                while not self._ending.is_set():
                    try:
                        line.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue


@pytest.fixture
def events(celery_setup: CeleryTestSetup) -> Iterator[Events]:
    with closing(Events(celery_setup.app)) as made:
        yield made


def check_a_worker_that_is_told_to_end(
    setup: CeleryTestSetup, events: Events, farm: Farm, database: OwnDatabase, folder: Path
) -> None:
    """It finishes the node that it has gone on with, and leaves the next one to another. Flower has seen each."""
    with going_ahead(farm, database, folder) as story:
        (pid,) = story.executed_by(1)
        wait_for(lambda: events.of("line.gate"), what="word of the gate, while it is executed")
        leaving = worker_of(setup, pid)

        leaving.kill(signal.SIGTERM)
        leaving.wait_for_log("Warm shutdown")
        story.release()
        assert process(leaving).wait() == 0
        wait_for(story.is_done, what="the end of the run", seconds=60)

        by = workers_of(story)
        assert (by["first"], by["gate"]) == ([str(pid)], [str(pid)])
        assert by["last"] != [str(pid)]
        assert story.attempts() == {"first": 1, "gate": 1, "last": 1}
        [(start, *_)], [(gate, *_)] = events.of("line.start"), events.of("line.gate")
        assert gate["parent_id"] == start["uuid"] != gate["uuid"]
        assert gate["hostname"] == start["hostname"]

        again = begin(farm, story.root, folder, new_id(), AHEAD)  # nobody holds the gate any more
        wait_for(again.is_done, what="the end of the next run", seconds=60)

        def last() -> list[dict[str, Any]]:
            told = [task for task in events.of("line.last") if task[0]["parent_id"]]
            return told[0] if told and len(told[0]) == 3 else []

        told = wait_for(last, what="all of the last node, which had no message")
        assert [event["type"] for event in told] == ["task-received", "task-started", "task-succeeded"]
        assert told[2]["result"] == "'committed'"


@pytest.mark.parametrize("celery_broker", BROKERS[:2], indirect=True)
def test_a_worker_told_to_end_goes_no_further(
    celery_setup: CeleryTestSetup, events: Events, farm: Farm, database: OwnDatabase, tmp_path: Path
) -> None:
    check_a_worker_that_is_told_to_end(celery_setup, events, farm, database, tmp_path)


class TestPrefork:
    @pytest.fixture
    def default_worker_container_cls(self) -> type[FarmWorker]:
        return PreforkWorker

    @pytest.mark.parametrize("celery_broker", BROKERS[:2], indirect=True)
    def test_a_child_told_to_end_goes_no_further(
        self, celery_setup: CeleryTestSetup, events: Events, farm: Farm, database: OwnDatabase, tmp_path: Path
    ) -> None:
        check_a_worker_that_is_told_to_end(celery_setup, events, farm, database, tmp_path)

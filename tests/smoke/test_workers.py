"""Clusters of the farm's own workers, on every broker: one may be killed at any instant, and another goes on."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pytest_celery import CeleryTestSetup, CeleryTestWorker

from agentfarm.flow.admit import admit_run, build_run
from agentfarm.flow.farm import Farm
from agentfarm.flow.read import get_state
from agentfarm.ids import new_id
from agentfarm.records import RunRequest
from agentfarm.run_options import RunChoices
from agentfarm.tenancy import Tenant
from tests.farm import children, wait_for
from tests.services import OwnDatabase
from tests.smoke.nodes import FarmWorker, LocalProcess, PreforkWorker

TENANT = Tenant(id=new_id(), slug="smoke")

NO_CHOICES = RunChoices()


@dataclass
class Story:
    """One run, as the test follows it."""

    farm: Farm
    root: psycopg.Connection
    folder: Path
    thread_id: UUID
    run_id: UUID

    def executed_by(self, times: int) -> list[int]:
        """The pids of those who began the gate, once it was begun so many times."""

        def pids() -> list[int]:
            trail = self.folder / "executed"
            begun = [int(line) for line in trail.read_text().split()] if trail.exists() else []
            return begun if len(begun) >= times else []

        return wait_for(pids, what=f"the gate begun {times} times", seconds=60)

    def release(self) -> None:
        (self.folder / "released").touch()

    def status(self) -> str:
        row = self.root.execute("SELECT status FROM farm.run WHERE run_id = %s", [self.run_id]).fetchone()
        return str(row[0]) if row else "unknown"

    def is_done(self) -> bool:
        return self.status() not in ("pending", "running")

    def log(self) -> list[str]:
        state: dict[str, Any] = get_state(self.farm, TENANT, self.thread_id)
        log: list[str] = state["values"]["log"]
        return log

    def is_serving(self, pid: int) -> bool:
        found = self.root.execute("SELECT FROM farm.worker WHERE pid = %s AND ended_at IS NULL", [pid])
        return found.fetchone() is not None

    def attempts(self) -> dict[str, int]:
        found = self.root.execute("SELECT node, attempts FROM farm.node_execution WHERE run_id = %s", [self.run_id])
        return {node: attempts for node, attempts in found.fetchall() if not node.startswith("__")}


@pytest.fixture
def story(celery_setup: CeleryTestSetup, farm: Farm, database: OwnDatabase, tmp_path: Path) -> Any:
    """A run of the line, just admitted, on two workers."""
    with psycopg.connect(database.root_url, autocommit=True) as root:
        yield begin(farm, root, tmp_path, new_id())


def begin(
    farm: Farm, root: psycopg.Connection, folder: Path, thread_id: UUID, choices: RunChoices = NO_CHOICES
) -> Story:
    request = RunRequest(assistant_id="line", input={"log": ["in"]}, if_not_exists="create", choices=choices)
    run = admit_run(farm, TENANT, build_run(farm, TENANT, request, thread_id=thread_id))
    return Story(farm, root, folder, thread_id, run.run_id)


def worker_of(setup: CeleryTestSetup, pid: int) -> CeleryTestWorker:
    return next(worker for worker in setup.worker_cluster if pid in process(worker).pids())


def process(worker: CeleryTestWorker) -> LocalProcess:
    local: LocalProcess = worker.container._container
    return local


def test_a_worker_killed_in_a_node_is_replaced_and_may_come_back(
    celery_setup: CeleryTestSetup, healer: LocalProcess, story: Story
) -> None:
    assert celery_setup.ready(control=celery_setup.app.conf.worker_enable_remote_control)  # SQS has none
    (first,) = story.executed_by(1)
    victim = worker_of(celery_setup, first)

    victim.kill()
    assert victim.container.status == "exited"
    _, second = story.executed_by(2)
    survivor = worker_of(celery_setup, second)
    story.release()
    wait_for(story.is_done, what="the end of the run", seconds=60)

    assert survivor is not victim
    assert story.status() == "success"
    assert story.log() == ["in", "first", "gate", "last"]
    assert story.attempts() == {"first": 1, "gate": 2, "last": 1}

    victim.restart()
    wait_for(lambda: story.is_serving(process(victim).popen.pid), what="the restarted worker", seconds=60)
    again = begin(story.farm, story.root, story.folder, story.thread_id)
    wait_for(again.is_done, what="the next run of the thread", seconds=60)
    assert again.log() == ["in", "first", "gate", "last"] * 2


def test_a_worker_asked_to_end_finishes_its_node_first(celery_setup: CeleryTestSetup, story: Story) -> None:
    (pid,) = story.executed_by(1)
    leaving = worker_of(celery_setup, pid)

    leaving.kill(signal.SIGTERM)
    leaving.wait_for_log("Warm shutdown")
    story.release()

    assert process(leaving).wait() == 0
    wait_for(story.is_done, what="the end of the run", seconds=60)
    assert story.status() == "success"
    assert story.attempts()["gate"] == 1
    ended = story.root.execute("SELECT ended_at IS NOT NULL FROM farm.worker WHERE pid = %s", [pid]).fetchone()
    assert ended == (True,)


class TestPrefork:
    @pytest.fixture
    def default_worker_container_cls(self) -> type[FarmWorker]:
        return PreforkWorker

    def test_a_child_killed_in_a_node_is_replaced(
        self, celery_setup: CeleryTestSetup, healer: LocalProcess, story: Story
    ) -> None:
        (child,) = story.executed_by(1)
        parent = worker_of(celery_setup, child)
        assert child in children(process(parent).popen.pid)

        os.kill(child, signal.SIGKILL)
        _, second = story.executed_by(2)
        story.release()
        wait_for(story.is_done, what="the end of the run", seconds=60)

        assert second != child
        assert story.status() == "success"
        assert story.log() == ["in", "first", "gate", "last"]
        assert story.attempts()["gate"] == 2
        assert parent.container.status == "running"

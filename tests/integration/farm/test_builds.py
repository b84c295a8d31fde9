"""Two builds side by side on a real farm: a run stays with the build that took it, new ones go to the other."""

from collections.abc import Iterator, Mapping

import pytest
from langgraph_sdk import get_sync_client

from tests.farm import ROOT, FarmProcesses, free_port, manage, running, wait_for
from tests.services import OwnDatabase

#: RabbitMQ alone, where each build's queues have to be declared; on Valkey a queue is there when it is written to, and
#: tests/unit/queueing compares the queues of both.
pytestmark = [
    pytest.mark.timeout(400),  # five processes start before the one test
    pytest.mark.rabbitmq,
    pytest.mark.parametrize("broker_url", ["rabbitmq"], indirect=True, scope="module"),
]


@pytest.fixture(scope="module")
def old(
    farm_environment: Mapping[str, str],
    database: OwnDatabase,
    tenant_keys: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FarmProcesses]:
    """Web, worker and beat of build 1.4."""
    config = str(ROOT / "tests/integration/farm/langgraph.json")
    environment = {**farm_environment, "AGENTFARM_CONFIG": config, "AGENTFARM_BUILD": "1.4"}
    made = FarmProcesses(environment, tmp_path_factory.mktemp("farm"), database.root_url, tenant_keys)
    with running(made):
        made.start_all("old")
        yield made


@pytest.fixture(scope="module")
def new(old: FarmProcesses) -> Iterator[FarmProcesses]:
    """Web and worker of build 1.5, beside them."""
    environment = {**old.environment, "AGENTFARM_BUILD": "1.5"}
    made = FarmProcesses(environment, old.folder, old.admin_dsn, old.keys, port=free_port())
    with running(made):
        made.start_worker("new")
        made.start("new-web", "manage.py", "serve", "--host", "127.0.0.1", "--port", str(made.port))
        wait_for(made.answers, what=f"an answer of {made.url}/ok")
        yield made


WORKERS = (
    "SELECT DISTINCT split_part(w.name, '@', 1) FROM farm.node_execution e JOIN farm.worker w USING (worker)"
    " WHERE e.run_id = %s"
)


def test_a_run_ends_where_it_began_and_what_is_left_behind_is_moved(old: FarmProcesses, new: FarmProcesses) -> None:
    with (
        get_sync_client(url=old.url, api_key=old.keys["demo"]) as at_old,
        get_sync_client(url=new.url, api_key=old.keys["demo"]) as at_new,
    ):
        # A slow run of the old build, while the new one serves.
        slow = at_old.threads.create()["thread_id"]
        slow_run = at_old.runs.create(slow, "twelve_steps", input={"delay_seconds": 0.1})["run_id"]
        old.holder_of(slow_run, "step_02")
        fresh = at_new.threads.create()["thread_id"]
        fresh_run = at_new.runs.create(fresh, "line", input={"log": []})["run_id"]
        assert at_new.runs.join(fresh, fresh_run)["log"] == ["a", "b", "c"]  # type: ignore[call-overload]
        at_new.runs.join(slow, slow_run)

        assert old.query(WORKERS, slow_run) == [("old",)]
        assert old.query(WORKERS, fresh_run) == [("new",)]

        # The old build's worker is gone for good, and its web still takes a run.
        (worker,) = [process for process in old.processes if process.name == "old"]
        assert "live and go on" in manage(new, "farm_builds", "move", "1.4", "1.5", fails=True)
        worker.stop()
        left = at_old.threads.create()["thread_id"]
        left_run = at_old.runs.create(left, "line", input={"log": []})["run_id"]
        listed = manage(new, "farm_builds")
        assert [line.split()[:3] for line in listed.splitlines()[1:]] == [["1.4", "0", "1"], ["1.5", "1", "0"]]
        assert "nobody serves it" in listed

        told = manage(new, "farm_builds", "move", "1.4", "1.5")

        assert "Moved 1 run(s) and 1 node execution(s) from 1.4 to 1.5." in told
        assert at_new.runs.join(left, left_run)["log"] == ["a", "b", "c"]  # type: ignore[call-overload]
        assert old.query(WORKERS, left_run) == [("new",)]

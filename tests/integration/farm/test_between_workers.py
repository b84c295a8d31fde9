"""What one worker did and another must know: cached results, the events of a run, and its one tree of callbacks."""

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient

from agentfarm.local.services import Services
from agentfarm.local.state import State
from agentfarm.local.valkey import Valkey as SharedValkey
from tests.farm import ROOT, FarmProcesses, running, wait_for
from tests.integration.streaming.valkey import Valkey
from tests.services import OwnDatabase, emptied, number_of


class LangSmith(ThreadingHTTPServer):
    """Takes what LangSmith's client sends, as LangSmith would.

    created  {run id: run}
    updated  in order
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Endpoint)
        self.created: dict[str, dict[str, Any]] = {}
        self.updated: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Endpoint(BaseHTTPRequestHandler):
    server: LangSmith

    def do_GET(self) -> None:
        batches = {
            "use_multipart_endpoint": False,
            "size_limit": 100,
            "size_limit_bytes": 20 << 20,
            "scale_up_nthreads_limit": 2,
            "scale_up_qsize_trigger": 1000,
            "scale_down_nempty_trigger": 4,
        }
        self._answer({"version": "1", "batch_ingest_config": batches})

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for run in sent.get("post") or []:
            self.server.created[run["id"]] = run
        self.server.updated += sent.get("patch") or []
        self._answer({})

    def _answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(202)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Not on the tests' output."""


@pytest.fixture(scope="module")
def langsmith() -> Iterator[LangSmith]:
    server = LangSmith()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def broker_url(servers: Services, worker_id: str) -> str:
    """Nothing here depends on the broker."""
    return emptied(SharedValkey(State(servers.folder)).url(2 * number_of(worker_id) + 1))


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """For streams and cache, to be killed by the last test."""
    server = Valkey(tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("trail") / "lines"
    file.touch()
    return file


@pytest.fixture(scope="module")
def farm(
    farm_environment: Mapping[str, str],
    database: OwnDatabase,
    tenant_keys: Mapping[str, str],
    own_valkey: Valkey,
    langsmith: LangSmith,
    trail: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FarmProcesses]:
    environment = {
        **farm_environment,
        "REDIS_URL": own_valkey.url,
        "AGENTFARM_CONFIG": str(ROOT / "tests/integration/farm/between_workers.json"),
        "BETWEEN_WORKERS_TRAIL": str(trail),
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_API_KEY": "for-tests-only",
        "LANGSMITH_ENDPOINT": langsmith.url,
        "LANGSMITH_PROJECT": "tests",
    }
    made = FarmProcesses(environment, tmp_path_factory.mktemp("farm"), database.root_url, tenant_keys)
    with running(made):
        made.start_all("one", "two")
        yield made


def lines(trail: Path, **having: Any) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in trail.read_text().splitlines()]
    return [line for line in found if having.items() <= line.items()]


def run_of(client: SyncLangGraphClient, graph: str, given: Any, **more: Any) -> tuple[str, list[Any]]:
    """(run id, parts of its stream)."""
    thread_id = client.threads.create()["thread_id"]
    parts = list(client.runs.stream(thread_id, graph, input=given, **more))
    return parts[0].data["run_id"], parts


# --------------------------------------------------------------------------- cached results


@pytest.mark.parametrize("graph", ["cached", "cached_async"])
def test_a_result_that_one_worker_cached_serves_the_other(
    client: SyncLangGraphClient, farm: FarmProcesses, trail: Path, graph: str
) -> None:
    given = {"word": f"word of {graph}", "log": []}
    answers: list[Any] = [client.runs.wait(client.threads.create()["thread_id"], graph, input=given)]

    def two_workers_have_looked() -> bool:
        # Side by side: the broker gives one after the other to workers in turn, and so maybe always to the same.
        threads = [client.threads.create()["thread_id"] for _ in range(4)]
        runs = [client.runs.create(thread_id, graph, input=given)["run_id"] for thread_id in threads]
        answers.extend(client.runs.join(thread_id, run_id) for thread_id, run_id in zip(threads, runs, strict=True))
        return len({line["pid"] for line in lines(trail, node="before", word=given["word"])}) == 2

    wait_for(two_workers_have_looked, what="both workers to look into the cache")

    assert len(lines(trail, node="look_up", word=given["word"])) == 1
    assert len({answer["log"][0] for answer in answers}) == 1
    assert {answer["log"][1] for answer in answers} == {f"Note tuple {given['word'].upper()}"}


def test_what_was_found_is_no_message(client: SyncLangGraphClient, farm: FarmProcesses) -> None:
    given = {"word": "no message", "log": []}

    nodes = []
    for run_id, _ in (run_of(client, "cached", given), run_of(client, "cached", given)):
        rows = farm.query("SELECT node FROM farm.node_execution WHERE run_id = %s ORDER BY created_at", run_id)
        nodes.append([row[0] for row in rows])

    assert nodes == [["__start__", "before", "look_up", "after"], ["__start__", "before", "after"]]


def test_another_tenant_finds_nothing(
    client: SyncLangGraphClient, other_client: SyncLangGraphClient, trail: Path
) -> None:
    for tenant in (client, other_client, client, other_client):
        run_of(tenant, "cached", {"word": "whose", "log": []})

    assert len(lines(trail, node="look_up", word="whose")) == 2


# --------------------------------------------------------------------------- events and callbacks


def test_the_events_of_a_run_are_one_tree(client: SyncLangGraphClient) -> None:
    run_id, parts = run_of(client, "speaks", {"word": "w", "log": []}, stream_mode=["events", "updates"])

    events = [part.data for part in parts if part.event == "events"]
    assert [event["event"] for event in events if event["run_id"] == run_id] == ["on_chain_start", "on_chain_end"]
    assert events[0]["data"]["input"] == {"word": "w", "log": []}
    assert events[-1]["data"]["output"]["log"] == ["said", "one two three", "said", "said", "said", "said"]
    assert all(event["parent_ids"][0] == run_id for event in events if event["run_id"] != run_id)
    tokens = [event["data"]["chunk"]["content"] for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(tokens) == "one two three"
    assert len(tokens) > 2
    nodes = [event["name"] for event in events if event["event"] == "on_chain_start"][1:]
    assert nodes == ["say_0", "speak_1", "say_2", "say_3", "say_4", "say_5"]
    assert sum(part.event == "updates" for part in parts) == 6


@pytest.mark.parametrize("mode", ["updates", "events"])
@pytest.mark.parametrize(("graph", "ends"), [("speaks", "end"), ("fails", "error")])
def test_two_workers_tell_handlers_of_one_run(
    client: SyncLangGraphClient, trail: Path, langsmith: LangSmith, graph: str, ends: str, mode: Any
) -> None:
    config: Any = {"tags": ["tagged"], "metadata": {"about": "it"}}

    def run_id_of_two_workers() -> str:
        given = {"word": "w", "log": []}
        run_id, _ = run_of(client, graph, given, config=config, stream_mode=mode)
        pids = {line["pid"] for line in lines(trail) if line.get("parent_run_id") == run_id}
        return run_id if len(pids) == 2 else ""

    run_id = wait_for(run_id_of_two_workers, what="a run whose nodes both workers executed")

    told = [line for line in lines(trail) if run_id in (line.get("run_id"), line.get("parent_run_id"))]
    assert [line["what"] for line in told if line["run_id"] == run_id] == ["start", ends]
    assert told[0]["run_id"] == told[-1]["run_id"] == run_id
    for line in told:
        if line["what"] == "start":
            assert "tagged" in line["tags"]
            assert line["metadata"].items() >= {"about": "it", "run_id": run_id}.items()

    def end_in_langsmith() -> dict[str, Any] | None:
        # Its start and end are sent as one, where one worker had both to send.
        sent = [*langsmith.updated, *langsmith.created.values()]
        return next((one for one in sent if one["id"] == run_id and one.get("end_time")), None)

    end = wait_for(end_in_langsmith, what="the end of the run in LangSmith")
    of_run = wait_for(lambda: runs_in_langsmith(langsmith, run_id, told), what="the nodes of the run in LangSmith")
    assert end["dotted_order"] == of_run[run_id]["dotted_order"]
    assert bool(end.get("error")) == (ends == "error")
    for key, sent in of_run.items():
        assert key == run_id or sent["dotted_order"].startswith(of_run[sent["parent_run_id"]]["dotted_order"] + ".")


def runs_in_langsmith(langsmith: LangSmith, run_id: str, told: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{run id: run} of the trace; empty until all that were told are there."""
    found = {key: sent for key, sent in list(langsmith.created.items()) if sent["trace_id"] == run_id}
    return found if found.keys() >= {line["run_id"] for line in told} else {}


def test_no_worker_logs_a_problem_of_a_handler(farm: FarmProcesses) -> None:
    """Runs after those above, and reads what their workers had to say."""
    logs = [process.log.read_text() for process in farm.processes if process.name in {"one", "two"}]

    assert not [line for text in logs for line in text.splitlines() if "callback" in line or "Tracer" in line]


# --------------------------------------------------------------------------- the last one


def test_a_cache_that_is_gone_costs_no_run(
    client: SyncLangGraphClient, farm: FarmProcesses, own_valkey: Valkey, trail: Path
) -> None:
    given = {"word": "gone", "log": []}
    run_of(client, "cached", given)

    own_valkey.kill()
    thread_id = client.threads.create()["thread_id"]
    run = client.runs.create(thread_id, "cached", input=given)

    def status() -> Any:
        found = client.runs.get(thread_id, run["run_id"])["status"]
        return found if found not in {"pending", "running"} else None

    assert wait_for(status, what="the end of the run") == "success"
    assert len(lines(trail, node="look_up", word="gone")) == 2

"""Streams on a real web process: they resume, end with their client or their server, and cost next to nothing."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from langgraph_sdk import get_client
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.farm import FarmProcesses, free_port, wait_for

LINE = {"assistant_id": "line", "input": {"log": []}, "stream_mode": ["values", "updates"]}


@dataclass(frozen=True)
class Part:
    event: str
    data: Any
    id: str


def parts_of(body: str) -> list[Part]:
    """What an SSE client reads."""
    found = []
    for block in body.split("\r\n\r\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\r\n") if line and not line.startswith(":"))
        if "event" in lines:
            found.append(Part(lines["event"], json.loads(lines["data"]), lines["id"]))
    return found


@pytest.fixture
def thread(http: httpx.Client) -> str:
    return str(http.post("/threads", json={}).json()["thread_id"])


@pytest.fixture
def gate(tmp_path: Path) -> "Gate":
    return Gate(tmp_path / "open")


@dataclass(frozen=True)
class Gate:
    """What the graph `gate` waits for."""

    path: Path

    def run(self, **fields: Any) -> dict[str, Any]:
        return {
            "assistant_id": "gate",
            "input": {"path": str(self.path)},
            "stream_mode": ["custom", "values"],
            **fields,
        }

    def open(self) -> None:
        self.path.touch()


def read_until(lines: Iterator[str], word: str) -> list[str]:
    read = []
    for line in lines:
        read.append(line)
        if word in line:
            return read
    raise AssertionError(f"the stream ended without {word!r}: {read[-5:]}")


def status_of(http: httpx.Client, thread: str, run: str) -> str:
    return str(http.get(f"/threads/{thread}/runs/{run}").json()["status"])


# --------------------------------------------------------------------------- reading


def test_a_stream_resumes_after_any_id_and_replays_after_its_end(http: httpx.Client, thread: str) -> None:
    answer = http.post(f"/threads/{thread}/runs/stream", json=LINE)
    parts = parts_of(answer.text)
    place = answer.headers["location"]

    assert parts[0].event == "metadata"
    assert parts[-1] == Part("end", {"status": "success"}, parts[-1].id)
    for number, part in enumerate(parts):
        rest = http.get(place, headers={"last-event-id": part.id})
        assert parts_of(rest.text) == parts[number + 1 :]
    for start in ("-1", "0-0"):
        assert parts_of(http.get(place, headers={"last-event-id": start}).text) == parts
    only_updates = parts_of(http.get(f"{place}?stream_mode=updates", headers={"last-event-id": "-1"}).text)
    assert [part for part in only_updates if part.event == "updates"] == [
        part for part in parts if part.event == "updates"
    ]
    assert not [part for part in only_updates if part.event == "values"]


def test_the_run_is_over_before_its_stream_ends(http: httpx.Client, thread: str) -> None:
    for _ in range(5):
        with http.stream("POST", f"/threads/{thread}/runs/stream", json=LINE) as answer:
            run = answer.headers["content-location"].rsplit("/", 1)[1]
            read_until(answer.iter_lines(), "event: end")
            assert status_of(http, thread, run) == "success"


def test_an_event_comes_while_its_node_still_runs(http: httpx.Client, thread: str, gate: Gate) -> None:
    with http.stream("POST", f"/threads/{thread}/runs/stream", json=gate.run()) as answer:
        lines = answer.iter_lines()
        began = read_until(lines, "began")
        read_until(lines, ": heartbeat")
        gate.open()
        rest = read_until(lines, "event: end")

    assert "event: custom" in began
    assert not any("ended" in line for line in began)
    assert any("ended" in line for line in rest)


def test_waiting_beats_and_then_answers(http: httpx.Client, thread: str, gate: Gate) -> None:
    with http.stream("POST", f"/threads/{thread}/runs/wait", json=gate.run()) as answer:
        chunks = answer.iter_bytes()
        assert next(chunks) == b"\n"
        assert next(chunks) == b"\n"
        gate.open()
        body = b"".join(chunks)

    assert json.loads(body)["log"] == ["waited"]


def test_many_may_read_one_run(http: httpx.Client, farm: FarmProcesses, thread: str, gate: Gate) -> None:
    run = http.post(f"/threads/{thread}/runs", json=gate.run()).json()
    place = f"{farm.url}/threads/{thread}/runs/{run['run_id']}"

    async def read(client: httpx.AsyncClient, door: str) -> str:
        answer = await client.get(f"{place}/{door}", headers={"last-event-id": "-1"})
        return answer.text

    async def read_all() -> list[str]:
        async with httpx.AsyncClient(headers={"x-api-key": farm.keys["demo"]}, timeout=60) as client:
            readings = [asyncio.create_task(read(client, door)) for door in ["stream"] * 20 + ["join"] * 10]
            await asyncio.to_thread(gate.open)
            return await asyncio.gather(*readings)

    answers = asyncio.run(read_all())
    streams = [parts_of(answer) for answer in answers[:20]]
    assert streams[0][-1].event == "end"
    assert all(stream == streams[0] for stream in streams)
    assert [json.loads(answer)["log"] for answer in answers[20:]] == [["waited"]] * 10


def test_a_run_of_another_tenant_cannot_be_read(http: httpx.Client, farm: FarmProcesses, thread: str) -> None:
    place = http.post(f"/threads/{thread}/runs/stream", json=LINE).headers["location"]
    theirs = {"x-api-key": farm.keys["other"], "last-event-id": "-1"}

    assert httpx.get(farm.url + place, headers=theirs).status_code == 404


# --------------------------------------------------------------------------- leaving


@pytest.mark.parametrize("door", ["stream", "wait"])
def test_a_run_may_end_with_its_client(http: httpx.Client, thread: str, gate: Gate, door: str) -> None:
    with http.stream("POST", f"/threads/{thread}/runs/{door}", json=gate.run(on_disconnect="cancel")) as answer:
        run = answer.headers["content-location"].rsplit("/", 1)[1]

    wait_for(lambda: status_of(http, thread, run) == "interrupted", what="the run cancelled")
    assert http.get(f"/threads/{thread}").json()["status"] == "idle"
    gate.open()


def test_a_run_goes_on_without_its_client_unless_asked_otherwise(http: httpx.Client, thread: str, gate: Gate) -> None:
    with http.stream("POST", f"/threads/{thread}/runs/stream", json=gate.run()) as answer:
        run = answer.headers["content-location"].rsplit("/", 1)[1]
        read_until(answer.iter_lines(), "began")
    with http.stream("GET", f"/threads/{thread}/runs/{run}/stream", headers={"last-event-id": "-1"}) as joined:
        read_until(joined.iter_lines(), "began")

    gate.open()

    wait_for(lambda: status_of(http, thread, run) == "success", what="the run's success")


def test_who_only_joined_may_take_the_run_along(http: httpx.Client, thread: str, gate: Gate) -> None:
    run = http.post(f"/threads/{thread}/runs", json=gate.run()).json()["run_id"]

    with http.stream("GET", f"/threads/{thread}/runs/{run}/stream?cancel_on_disconnect=true"):
        pass

    wait_for(lambda: status_of(http, thread, run) == "interrupted", what="the run cancelled")
    gate.open()


# --------------------------------------------------------------------------- a web process that stops


@pytest.fixture
def second(farm: FarmProcesses) -> Iterator[FarmProcesses]:
    """Another web process of the same farm."""
    other = replace(farm, port=free_port(), processes=[], folder=farm.folder / uuid4().hex)
    other.folder.mkdir()
    other.start_web()
    yield other
    other.stop()


def test_a_stopping_server_cuts_what_is_open_exits_with_0_and_nothing_is_lost(
    http: httpx.Client, farm: FarmProcesses, second: FarmProcesses, thread: str, gate: Gate
) -> None:
    headers = {"x-api-key": farm.keys["demo"]}
    run = http.post(f"/threads/{thread}/runs", json=gate.run()).json()["run_id"]
    place = f"/threads/{thread}/runs/{run}"
    with httpx.Client(base_url=second.url, headers=headers, timeout=30) as client, contextlib.ExitStack() as open_ones:
        stream = open_ones.enter_context(client.stream("GET", f"{place}/stream", headers={"last-event-id": "-1"}))
        waiting = open_ones.enter_context(client.stream("GET", f"{place}/join"))
        lines = stream.iter_lines()
        seen = [*read_until(lines, "began"), *read_until(lines, "id: ")]
        chunks = waiting.iter_bytes()
        assert next(chunks) == b"\n"
        began = time.monotonic()

        web = second.processes[0]
        web.popen.terminate()

        for rest in (lines, chunks):
            with pytest.raises(httpx.RemoteProtocolError):
                list(rest)
        assert web.popen.wait(15) == 0
        assert time.monotonic() - began < 10, web.tail()

    gate.open()
    after = parts_of(http.get(f"{place}/stream", headers={"last-event-id": seen[-1].removeprefix("id: ")}).text)
    assert [part.data for part in after if part.event == "custom"] == [{"at": "ended"}]
    assert after[-1].event == "end"
    assert http.get(f"{place}/join").json()["log"] == ["waited"]
    log = web.log.read_text()
    assert "Traceback" not in log
    assert "uvicorn.error" not in [json.loads(line)["logger"] for line in log.splitlines() if '"error"' in line]


def test_the_official_client_does_not_notice_that_its_server_stopped(
    farm: FarmProcesses, second: FarmProcesses, thread: str, gate: Gate
) -> None:
    """It reads the first half from one process and, at the same address, the second half from another."""

    async def read() -> list[tuple[str, Any]]:
        told: list[tuple[str, Any]] = []
        async with get_client(url=second.url, api_key=farm.keys["demo"]) as client:
            stream: AsyncIterator[Any] = client.runs.stream(
                thread, "gate", input={"path": str(gate.path)}, stream_mode=["custom", "values"]
            )
            async for part in stream:
                told.append((part.event, part.data))
                if part.data == {"at": "began"}:
                    assert await asyncio.to_thread(second.processes[0].stop) == 0
                    gate.open()  # the run goes on, and may be over, while nobody serves
                    await asyncio.to_thread(second.start_web)
        return told

    told = asyncio.run(asyncio.wait_for(read(), 60))

    assert [data["at"] for event, data in told if event == "custom"] == ["began", "ended"]
    assert told[-1] == ("end", {"status": "success"})


# --------------------------------------------------------------------------- what an open stream costs


def test_idle_streams_hold_neither_threads_nor_connections(
    http: httpx.Client, farm: FarmProcesses, thread: str, gate: Gate
) -> None:
    run = http.post(f"/threads/{thread}/runs", json=gate.run()).json()["run_id"]
    web = farm.processes[0].pid
    before = connections(farm)

    async def hold(count: int, while_open: Callable[[], None]) -> None:
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(
                base_url=farm.url, headers={"x-api-key": farm.keys["demo"]}, timeout=60, limits=limits
            ) as client,
            contextlib.AsyncExitStack() as stack,
        ):
            for _ in range(count):
                await stack.enter_async_context(client.stream("GET", f"/threads/{thread}/runs/{run}/stream"))
            await asyncio.to_thread(while_open)

    def look() -> None:
        wait_for(
            lambda: len(list(Path(f"/proc/{web}/task").iterdir())) < 40, what="threads that end with their requests"
        )
        assert connections(farm) - before < 20
        assert http.get("/threads/" + thread).status_code == 200

    asyncio.run(hold(300, look))
    gate.open()
    wait_for(lambda: status_of(http, thread, run) == "success", what="the run's success")


def test_a_client_that_does_not_read_costs_the_server_a_page_and_gets_all_when_it_does(
    http: httpx.Client, farm: FarmProcesses, thread: str
) -> None:
    events, event_bytes = 60, 1_000_000
    run = http.post(
        f"/threads/{thread}/runs",
        json={
            "assistant_id": "loud",
            "input": {"events": events, "event_bytes": event_bytes},
            "stream_mode": ["custom"],
        },
    ).json()["run_id"]
    wait_for(lambda: status_of(http, thread, run) == "success", what="the run's success")
    place = f"/threads/{thread}/runs/{run}/stream"
    web = psutil.Process(next(process.pid for process in farm.processes if process.name == "web"))
    before = web.memory_info().rss

    with http.stream("GET", place, headers={"last-event-id": "-1"}) as answer:
        lines = answer.iter_lines()
        read_until(lines, '"number":0')  # the server holds what it has read of the run until that is taken
        held = web.memory_info().rss - before
        numbers = [json.loads(line.removeprefix("data: "))["number"] for line in lines if '"number"' in line]

    assert numbers == list(range(1, events))
    assert held < events * event_bytes / 4, f"{held} B more are held for one client that does not read"


def connections(farm: FarmProcesses) -> int:
    return int(farm.query("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")[0][0])


def test_a_websocket_is_refused_in_words(farm: FarmProcesses) -> None:
    address = farm.url.replace("http", "ws", 1) + f"/threads/{uuid4()}/stream/events"

    with pytest.raises(InvalidStatus) as refused, connect(address):
        pass

    assert refused.value.response.status_code == 501
    assert b"not_implemented" in (refused.value.response.body or b"")

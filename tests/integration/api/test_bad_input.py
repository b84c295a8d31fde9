"""Whatever a client sends, it gets a clear 4xx, and nothing has changed.

On the real thing: parser, views, flow and Postgres. Each case counts the tenant's rows before and after.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.farm import FarmProcesses
from tests.integration.api.conftest import MAX_BODY_BYTES

TABLES = ("thread", "run", "node_execution", "checkpoint", "checkpoint_write", "store_item", "store_vector")

RUN = {"assistant_id": "line", "input": {"log": []}}


def run(**fields: Any) -> bytes:
    return json.dumps({**RUN, **fields}).encode()


def raw_input(value: bytes) -> bytes:
    return b'{"assistant_id": "line", "input": {"log": [' + value + b"]}}"


#: name → (path, body, statuses, a word of the answer)
BODIES: dict[str, tuple[str, bytes, tuple[int, ...], str]] = {
    "unknown graph": ("/runs", run(assistant_id="nope"), (404,), "Assistant not found"),
    "unknown assistant": ("/runs", run(assistant_id=str(uuid4())), (404,), "Assistant not found"),
    "graph that cannot be loaded": ("/runs", run(assistant_id="broken"), (404, 503), ""),
    "empty body": ("/runs", b"", (422,), "required"),
    "no JSON": ("/runs", b"{", (400,), "not JSON"),
    "a form": ("/runs", b"assistant_id=line", (400,), "not JSON"),
    "a list": ("/runs", b"[]", (422,), "dictionary"),
    "a string": ("/runs", b'"line"', (422,), "dictionary"),
    "no UTF-8": ("/runs", b'{"assistant_id": "\xff"}', (400,), "not JSON"),
    "NUL in a value": ("/runs", raw_input(b'"a\\u0000b"'), (422,), "NUL"),
    "NUL in a key": ("/runs", b'{"assistant_id": "line", "input": {"a\\u0000": 1}}', (422,), "NUL"),
    "NUL in metadata": ("/threads", b'{"metadata": {"a": "\\u0000"}}', (422,), "NUL"),
    "NUL in a filter": ("/threads/search", b'{"metadata": {"a": "\\u0000"}}', (422,), "NUL"),
    "lone surrogate": ("/runs", raw_input(b'"\\ud800"'), (400,), "not JSON"),
    "NaN": ("/runs", raw_input(b"NaN"), (400,), "not JSON"),
    "Infinity": ("/runs", raw_input(b"-Infinity"), (400,), "not JSON"),
    "1e999": ("/runs", raw_input(b"1e999"), (400,), "not JSON"),
    "an integer of 65 bits": ("/runs", raw_input(b"18446744073709551616"), (422,), "64 bits"),
    "an integer of 3,000 digits": ("/runs", raw_input(b"1" * 3000), (400, 422), ""),
    "nested 101 deep": ("/runs", raw_input(b"[" * 98 + b"]" * 98), (422,), "nested"),
    "nested 2,000 deep": ("/runs", raw_input(b"[" * 2000 + b"]" * 2000), (422,), "nested"),
    "nested 50,000 deep": ("/runs", raw_input(b'{"a":' * 50_000), (413, 422), ""),
    "a body over the limit": ("/runs", run(input={"log": ["x" * MAX_BODY_BYTES]}), (413,), "larger"),
    "an unknown field": ("/runs", run(webhok="x"), (422,), "webhok"),
    "a webhook": ("/runs", run(webhook="http://example"), (422,), "webhook"),
    "a delay": ("/runs", run(after_seconds=5), (422,), "after_seconds"),
    "an unknown strategy": ("/runs", run(multitask_strategy="queue"), (422,), "multitask_strategy"),
    "an unknown stream mode": ("/runs/stream", run(stream_mode="everything"), (422,), "everything"),
    "an unknown durability": ("/runs", run(durability="fast"), (422,), "durability"),
    "an unknown node": ("/runs", run(interrupt_before=["nope"]), (422,), "interrupt_before"),
    "a limit of 0": ("/runs", run(config={"recursion_limit": 0}), (422,), "recursion_limit"),
    "config of a wrong type": ("/runs", run(config=[]), (422,), "config"),
    "an option that is none": ("/runs", run(config={"agentfarm": {"runahead": True}}), (422,), "runahead"),
    "an option of a wrong type": ("/runs", run(config={"agentfarm": {"run_ahead": 1}}), (422,), "run_ahead"),
    "state nowhere": ("/runs", run(config={"agentfarm": {"persistence": "memory"}}), (422,), "persistence"),
    "context twice": ("/runs", run(config={"configurable": {"a": 1}}, context={"a": 1}), (400, 422), "context"),
    "input and command": ("/runs", run(command={"goto": "a"}), (400,), "command"),
    "an empty command": ("/runs", run(input=None, command={}), (422,), "command"),
    "an unknown command": ("/runs", run(input=None, command={"jump": "a"}), (422,), "jump"),
    "resume without a thread": ("/runs", run(input=None, command={"resume": 1}), (400,), "resume"),
    "a checkpoint without a thread": ("/runs", run(checkpoint_id=str(uuid4())), (422,), "checkpoint"),
    "a thread that is not there": (f"/threads/{uuid4()}/runs", run(), (404,), "not found"),
    "a thread id that is none": ("/threads/x/runs", run(), (422,), "UUID"),
    "a thread id with a quote": ("/threads/'%20OR%20''='/runs", run(), (422,), "UUID"),
    "an encoded slash": (f"/threads/{uuid4()}%2Fruns", run(), (400,), "encoded slash"),
    "dot segments": ("/threads/%2e%2e/runs", run(), (400,), "dot segment"),
    "a thread made with an id that is none": ("/threads", b'{"thread_id": "1"}', (422,), "thread_id"),
    "a page of a million": ("/threads/search", b'{"limit": 1000000}', (422,), "limit"),
    "an offset of a million": ("/threads/search", b'{"offset": 1000000}', (422,), "offset"),
    "a negative limit": ("/threads/search", b'{"limit": -1}', (422,), "limit"),
    "sorted by SQL": ("/threads/search", b'{"sort_by": "1; DROP TABLE"}', (422,), "sort_by"),
    "an unknown status": ("/threads/search", b'{"status": "done"}', (422,), "status"),
    "state of an unknown thread": (f"/threads/{uuid4()}/state", b'{"values": {}}', (404,), "not found"),
    "a search of the store by an unknown operator": (
        *("/store/items/search", b'{"namespace_prefix": [], "filter": {"a": {"$in": [1]}}}', (422,), "$eq"),
    ),
    "a search of the store in a label with a dot": (
        *("/store/items/search", b'{"namespace_prefix": ["a.b"]}', (422,), "namespace"),
    ),
    "namespaces by an empty label": ("/store/namespaces", b'{"suffix": [""]}', (422,), "namespace"),
    "namespaces to a depth of 0": ("/store/namespaces", b'{"max_depth": 0}', (422,), "max_depth"),
    "an empty batch": ("/runs/batch", b"[]", (422,), ""),
    "a batch with one that is wrong": ("/runs/batch", b"[" + run() + b"," + run(assistant_id="x") + b"]", (404,), ""),
}


def rows(farm: FarmProcesses) -> list[int]:
    return [int(farm.query(f"SELECT count(*) FROM farm.{table}")[0][0]) for table in TABLES]


@pytest.fixture
def nothing_changes(farm: FarmProcesses) -> Iterator[None]:
    before = rows(farm)
    yield
    assert rows(farm) == before


@pytest.mark.usefixtures("nothing_changes")
@pytest.mark.parametrize("name", BODIES)
def test_bad_input_is_refused_in_words_and_changes_nothing(http: httpx.Client, name: str) -> None:
    path, body, statuses, word = BODIES[name]

    answer = http.post(path, content=body, headers={"content-type": "application/json"})

    assert answer.status_code in statuses, answer.text
    assert word in answer.text
    assert answer.json()["code"]
    assert answer.headers["x-request-id"]


@pytest.mark.usefixtures("nothing_changes")
def test_a_body_over_the_limit_is_refused_before_it_is_sent_whole(http: httpx.Client) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 1
            yield b"x" * 10_000

    # The server answers and closes while the client still sends: which of the two it notices first is a matter of time.
    with suppress(httpx.TransportError):
        assert http.post("/runs", content=body()).status_code == 413

    assert sent < 2000
    assert http.get("/ok").status_code == 200


@pytest.mark.usefixtures("nothing_changes")
@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": ""},
        {"x-api-key": "nope"},
        {"x-api-key": "af_" + "0" * 32 + "_secret"},
        {"x-api-key": "af_" + "z" * 32 + "_secret"},
        {"x-api-key": "x" * 5000},
        {"x-api-key": "'; DROP TABLE run; --"},
        {"authorization": "Bearer nope"},
        {"authorization": "Basic bm9wZTpub3Bl"},
        {},
    ],
    ids=range(9),
)
def test_without_a_good_key_there_is_no_answer(farm: FarmProcesses, headers: dict[str, str]) -> None:
    answer = httpx.post(f"{farm.url}/runs", json=RUN, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_a_key_changed_in_one_character_is_wrong(farm: FarmProcesses) -> None:
    key = farm.keys["demo"]
    for place in (5, len(key) // 2, len(key) - 2):
        other = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
        assert httpx.get(f"{farm.url}/threads/{uuid4()}", headers={"x-api-key": other}).status_code == 401


def test_what_is_odd_and_can_be_stored_comes_back_as_it_was(http: httpx.Client) -> None:
    odd = ["", "\\u0000", "🐸\u2028\u200f", "'; DROP TABLE x; --", "{{7*7}}", "%s%n", "\x7f\x1b[31m", "a" * 50_000]
    thread = http.post("/threads", json={"metadata": {"odd": odd, "\u202e": None}}).json()

    answer = http.post(
        f"/threads/{thread['thread_id']}/runs/wait", json={"assistant_id": "line", "input": {"log": odd}}
    )

    assert answer.json() == {"log": [*odd, "a", "b"]}
    assert http.get(f"/threads/{thread['thread_id']}").json()["metadata"]["odd"] == odd
    assert http.post("/threads/count", json={"metadata": {"odd": odd}}).json() == 1


def test_no_word_of_a_client_and_no_key_is_in_the_log(http: httpx.Client, farm: FarmProcesses) -> None:
    secret = f"the-prompt-{uuid4().hex}"
    thread = http.post("/threads", json={}).json()["thread_id"]
    http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "line", "input": {"log": [secret]}})
    http.post("/runs", content=b'{"assistant_id": "' + secret.encode())
    http.post("/runs", json={"assistant_id": secret, "input": {}})
    http.post("/threads/search", json={"limit": secret})
    http.get(f"/threads/{secret}?x={secret}", headers={"x-request-id": "<" + secret})
    http.get(f"/{secret}")
    http.get("/threads", headers={"x-api-key": secret})

    for process in farm.processes:
        log = process.log.read_text()
        assert secret not in log
        assert farm.keys["demo"] not in log
    assert '"route": "/threads/<thread_id>"' in farm.processes[0].log.read_text().replace('":"', '": "')

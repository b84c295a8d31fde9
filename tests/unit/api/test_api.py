"""What a client sees: statuses, headers and bodies as the Agent Server's SDKs read them."""

import json
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from django.core.wsgi import get_wsgi_application

from agentfarm import ids
from agentfarm.errors import StoreUnavailable
from agentfarm.records import Event
from tests.unit.api.fakes import ACME, GLOBEX, FakeFarm

#: In parameters: pytest-xdist compares the names of tests, which hold them.
SOME_ID = "00000000-0000-7000-8000-000000000001"

RUN = {"assistant_id": "echo", "input": {"said": "hi"}}


async def a_thread(client: httpx.AsyncClient, **fields: Any) -> str:
    made = await client.post("/threads", json=fields)
    assert made.status_code == 200, made.text
    return str(made.json()["thread_id"])


# --------------------------------------------------------------------------- who asks


@pytest.mark.parametrize("header", [{"x-api-key": "key-of-globex"}, {"authorization": "Bearer key-of-globex"}])
async def test_a_key_is_taken_in_either_header(client: httpx.AsyncClient, header: dict[str, str]) -> None:
    client.headers.pop("x-api-key")

    assert (await client.post("/threads/search", json={}, headers=header)).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"authorization": "Basic key-of-acme"},
        {"authorization": "Bearer"},
    ],
)
async def test_without_a_good_key_nobody_gets_in(client: httpx.AsyncClient, header: dict[str, str]) -> None:
    client.headers.pop("x-api-key")

    answer = await client.post("/threads", content=b"not even JSON", headers=header)

    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"]


async def test_a_wrong_key_is_wrong_also_where_none_is_needed(client: httpx.AsyncClient, fakes: FakeFarm) -> None:
    fakes.keys.lets_in = ACME
    client.headers.pop("x-api-key")

    assert (await client.post("/threads/search", json={})).status_code == 200
    assert (await client.post("/threads/search", json={}, headers={"x-api-key": "wrong"})).status_code == 401


@pytest.mark.parametrize("path", ["/ok", "/ready", "/info", "/openapi.json", "/docs"])
async def test_what_is_open_needs_no_key(client: httpx.AsyncClient, path: str) -> None:
    client.headers.pop("x-api-key")

    assert (await client.get(path)).status_code == 200


async def test_every_other_path_of_the_documents_needs_a_key(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    client.headers.pop("x-api-key")

    for path, methods in paths.items():
        for method in methods:
            answer = await client.request(method, path.replace("{", "").replace("}", ""), json={})
            assert answer.status_code == (200 if path in ("/ok", "/ready", "/info") else 401), (method, path)


async def test_the_documents_ask_no_other_host(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert "/static/ninja/" in page
    assert "//cdn" not in page
    assert (await client.get("/static/ninja/swagger-ui-bundle.js")).status_code == 200


# --------------------------------------------------------------------------- errors


async def test_a_thread_of_another_tenant_is_byte_for_byte_one_that_does_not_exist(
    client: httpx.AsyncClient, fakes: FakeFarm
) -> None:
    theirs = await a_thread(client)
    run = (await client.post(f"/threads/{theirs}/runs", json=RUN)).json()["run_id"]
    asked = [
        ("GET", "/threads/{thread}", None),
        ("PATCH", "/threads/{thread}", {"metadata": {"a": 1}}),
        ("DELETE", "/threads/{thread}", None),
        ("GET", "/threads/{thread}/state", None),
        ("POST", "/threads/{thread}/state", {"values": {"said": "x"}}),
        ("POST", "/threads/{thread}/history", {}),
        ("POST", "/threads/{thread}/runs", RUN),
        ("POST", "/threads/{thread}/runs/wait", RUN),
        ("POST", "/threads/{thread}/runs/stream", RUN),
        ("GET", "/threads/{thread}/runs", None),
        ("GET", f"/threads/{{thread}}/runs/{run}", None),
        ("DELETE", f"/threads/{{thread}}/runs/{run}", None),
        ("GET", f"/threads/{{thread}}/runs/{run}/join", None),
        ("GET", f"/threads/{{thread}}/runs/{run}/stream", None),
        ("POST", f"/threads/{{thread}}/runs/{run}/cancel", None),
    ]
    headers = {"x-api-key": fakes.key_of(GLOBEX), "x-request-id": "same"}

    for method, path, body in asked:
        seen, missing = [
            await client.request(method, path.format(thread=thread), json=body, headers=headers)
            for thread in (theirs, uuid4())
        ]
        assert seen.status_code == 404, path
        assert (seen.content, seen.headers) == (missing.content, missing.headers), path


async def test_what_is_wrong_with_a_request_is_told_without_what_was_sent(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/threads/search", json={"limit": "the-prompt", "status": "the-prompt", "ids": ["the-prompt"]}
    )

    assert answer.status_code == 422
    assert {tuple(error["loc"]) for error in answer.json()["detail"]} == {
        ("body", "limit"), ("body", "status"), ("body", "ids", 0),
    }  # fmt: skip
    assert "prompt" not in answer.text


async def test_an_error_of_ours_that_nobody_meant_is_500_and_tells_nothing(
    client: httpx.AsyncClient, fakes: FakeFarm, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.threads.fails_with = ZeroDivisionError("the-prompt")

    answer = await client.get(f"/threads/{uuid4()}", headers={"x-request-id": "abc"})

    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert answer.headers["x-request-id"] == "abc"
    assert "prompt" not in answer.text
    assert any(record.exc_info for record in caplog.records)


async def test_a_database_that_does_not_answer_is_503_and_says_when_to_come_back(
    client: httpx.AsyncClient, fakes: FakeFarm
) -> None:
    fakes.threads.fails_with = StoreUnavailable()

    answer = await client.get(f"/threads/{uuid4()}")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


async def test_a_host_that_is_not_ours_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/info", headers={"host": "evil.example"})

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_wsgi_refuses_what_is_too_large_and_what_it_cannot_hold_open(
    fakes: FakeFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.threads.create(ACME, thread := uuid4(), {}, if_exists="raise")
    monkeypatch.setattr("django.conf.settings.DATA_UPLOAD_MAX_MEMORY_SIZE", 1000)
    wsgi: Any = get_wsgi_application()
    with httpx.Client(
        transport=httpx.WSGITransport(wsgi), base_url="http://localhost", headers={"x-api-key": "key-of-acme"}
    ) as client:
        assert client.post("/threads/search", json={}).status_code == 200
        assert client.post("/threads/search", content=b" " * 2000).status_code == 413
        refused = client.post(f"/threads/{thread}/runs/stream", json=RUN)
        assert (refused.status_code, "WSGI" in refused.text) == (400, True)
    assert fakes.runs.new == []


async def test_unknown_paths_and_methods_are_answered_in_json(client: httpx.AsyncClient) -> None:
    missing = await client.get("/no/such/path")
    method = await client.put("/threads")

    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (method.status_code, method.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in method.headers["allow"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/assistants"),
        ("PATCH", f"/assistants/{SOME_ID}"),
        ("POST", "/runs/crons"),
        ("POST", "/runs/crons/search"),
        ("POST", f"/threads/{SOME_ID}/commands"),
        ("POST", "/mcp"),
    ],
)
async def test_what_is_not_served_yet_says_so(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path, json={})

    assert (answer.status_code, answer.json()["code"]) == (501, "not_implemented")


@pytest.mark.parametrize(
    "path", ["/threads/nope", "/threads/123/state", f"/threads/{SOME_ID}/runs/nope", "/assistants/echo"]
)
async def test_an_id_that_is_none_is_refused(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_id")


# --------------------------------------------------------------------------- runs


async def test_a_background_run_is_answered_with_where_it_is(client: httpx.AsyncClient) -> None:
    thread = await a_thread(client)

    answer = await client.post(f"/threads/{thread}/runs", json={**RUN, "metadata": {"who": "me"}})

    run = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-location"] == f"/threads/{thread}/runs/{run['run_id']}"
    assert run["thread_id"] == thread
    assert run["metadata"] == {"who": "me"}
    assert run["assistant_id"] == str(ids.assistant_id("echo"))
    assert run["kwargs"]["input"] == {"said": "hi"}
    assert run["multitask_strategy"] == "enqueue"


async def test_a_run_is_streamed_as_server_sent_events(client: httpx.AsyncClient, fakes: FakeFarm) -> None:
    thread = await a_thread(client)

    answer = await client.post(f"/threads/{thread}/runs/stream", json=RUN)

    run_id = fakes.runs.new[0].run_id
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-location"] == f"/threads/{thread}/runs/{run_id}"
    assert answer.headers["location"] == f"/threads/{thread}/runs/{run_id}/stream"
    assert "content-length" not in answer.headers
    assert answer.content == b': heartbeat\r\n\r\nevent: end\r\ndata: {"status":"success"}\r\nid: 9-0\r\n\r\n'


async def test_waiting_is_answered_with_line_ends_and_then_the_values(
    client: httpx.AsyncClient, fakes: FakeFarm
) -> None:
    thread = await a_thread(client, metadata={"graph_id": "echo"})
    await client.post(f"/threads/{thread}/state", json={"values": {"said": "hi"}, "as_node": "echo"})

    answer = await client.post(f"/threads/{thread}/runs/wait", json=RUN)

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["location"].endswith("/join")
    assert answer.content == b'\n{"said":"hi"}'


async def test_a_run_without_a_thread_has_one_of_its_own(client: httpx.AsyncClient, fakes: FakeFarm) -> None:
    answer = await client.post("/runs", json=RUN)

    [new] = fakes.runs.new
    assert answer.json()["thread_id"] == str(new.thread_id)
    assert (new.create_thread, new.forget_thread) == (True, True)


async def test_a_batch_is_checked_whole_before_any_of_it_is_created(client: httpx.AsyncClient, fakes: FakeFarm) -> None:
    refused = await client.post("/runs/batch", json=[RUN, {**RUN, "assistant_id": "nope"}])
    assert refused.status_code == 404
    assert fakes.runs.new == []

    made = await client.post("/runs/batch", json=[RUN, RUN, RUN])
    assert [run["status"] for run in made.json()] == ["success"] * 3
    assert (await client.post("/runs/batch", json=[])).status_code == 422


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({}, "$"),
        ({"last-event-id": "-1"}, "0-0"),
        ({"last-event-id": "0-0"}, "0-0"),
        ({"last-event-id": "17-3"}, "17-3"),
    ],
)
async def test_a_stream_is_joined_from_now_or_from_an_id(
    client: httpx.AsyncClient, fakes: FakeFarm, headers: dict[str, str], after: str
) -> None:
    thread = await a_thread(client)
    run = (await client.post(f"/threads/{thread}/runs", json=RUN)).json()["run_id"]

    answer = await client.get(f"/threads/{thread}/runs/{run}/stream", headers=headers)

    assert answer.status_code == 200
    assert fakes.log.followed == [after]


@pytest.mark.parametrize("last", ["x", "1-2-3", "1795416286670-0) COUNT", "٣-٤", "1-٤", "9" * 60, "$"])
async def test_what_is_no_event_id_is_refused(client: httpx.AsyncClient, last: str) -> None:
    thread = await a_thread(client)
    run = (await client.post(f"/threads/{thread}/runs", json=RUN)).json()["run_id"]

    answer = await client.get(f"/threads/{thread}/runs/{run}/stream", headers={"last-event-id": last.encode()})  # type: ignore[dict-item]

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "stream_mode=custom",
        'stream_mode=["custom"]',
        "stream_mode=custom&stream_mode=tasks",
        "stream_mode=custom&stream_mode=events",
    ],
)
async def test_a_join_may_ask_for_some_modes(client: httpx.AsyncClient, fakes: FakeFarm, query: str) -> None:
    thread = await a_thread(client)
    run = (await client.post(f"/threads/{thread}/runs", json=RUN)).json()["run_id"]
    fakes.log.events[UUID(run)] = [Event("values", b"1", "1-0"), Event("custom|sub:1", b"2", "2-0")]

    answer = await client.get(f"/threads/{thread}/runs/{run}/stream?{query}")

    assert b"event: values" not in answer.content
    assert b"event: custom|sub:1" in answer.content


async def test_a_mode_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    thread = await a_thread(client)
    run = (await client.post(f"/threads/{thread}/runs", json=RUN)).json()["run_id"]

    for query in ("stream_mode=nope", "stream_mode=[", 'stream_mode=["custom", 1]', "stream_mode=[{}]"):
        assert (await client.get(f"/threads/{thread}/runs/{run}/stream?{query}")).status_code == 422, query


async def test_cancelling_answers_202_and_what_is_over_404(client: httpx.AsyncClient, fakes: FakeFarm) -> None:
    thread = await a_thread(client)
    fakes.runs.ends_as = "running"
    run = (await client.post(f"/threads/{thread}/runs", json=RUN)).json()["run_id"]

    assert (await client.post(f"/threads/{thread}/runs/{run}/cancel?wait=0&action=interrupt")).status_code == 202
    assert (await client.post(f"/threads/{thread}/runs/{run}/cancel")).status_code == 404
    assert (await client.post(f"/threads/{thread}/runs/{run}/cancel?action=stop")).status_code == 422


async def test_runs_are_cancelled_together(client: httpx.AsyncClient, fakes: FakeFarm) -> None:
    thread = await a_thread(client)
    fakes.runs.ends_as = "pending"
    runs = [(await client.post(f"/threads/{thread}/runs", json=RUN)).json()["run_id"] for _ in range(3)]

    one = await client.post("/runs/cancel", json={"thread_id": thread, "run_ids": runs[:1]})
    rest = await client.post("/runs/cancel", json={"thread_id": thread, "status": "all"})

    assert (one.status_code, rest.status_code) == (204, 204)
    assert [str(run) for run in fakes.runs.cancelled] == runs
    assert (await client.post("/runs/cancel", json={"status": "all"})).status_code == 422
    assert (await client.post("/runs/cancel", json={"thread_id": thread})).status_code == 422
    assert (await client.post("/runs/cancel", json={"thread_id": thread, "run_ids": [str(uuid4())]})).status_code == 404


async def test_a_busy_thread_refuses_when_asked_to(client: httpx.AsyncClient, fakes: FakeFarm) -> None:
    thread = await a_thread(client)
    fakes.runs.is_busy = True

    answer = await client.post(f"/threads/{thread}/runs", json={**RUN, "multitask_strategy": "reject"})

    assert (answer.status_code, answer.json()["code"]) == (409, "thread_busy")


async def test_runs_are_listed_with_the_fields_that_were_asked_for(client: httpx.AsyncClient) -> None:
    thread = await a_thread(client)
    await client.post(f"/threads/{thread}/runs", json=RUN)

    everything = (await client.get(f"/threads/{thread}/runs?limit=5&offset=0")).json()
    some = (await client.get(f"/threads/{thread}/runs?select=run_id&select=status&status=success")).json()

    assert some == [{"run_id": everything[0]["run_id"], "status": "success"}]
    assert (await client.get(f"/threads/{thread}/runs?status=done")).status_code == 422


# --------------------------------------------------------------------------- threads and assistants


async def test_a_thread_is_made_once_and_its_metadata_merged(client: httpx.AsyncClient) -> None:
    thread = await a_thread(client, thread_id=str(uuid4()), metadata={"a": 1, "b": 2}, ttl=None)

    assert (await client.post("/threads", json={"thread_id": thread})).status_code == 409
    again = await client.post("/threads", json={"thread_id": thread, "if_exists": "do_nothing"})
    patched = await client.patch(f"/threads/{thread}", json={"metadata": {"b": 3}})
    quiet = await client.patch(f"/threads/{thread}", json={"metadata": {}}, headers={"prefer": "return=minimal"})

    assert again.json()["thread_id"] == thread
    assert patched.json()["metadata"] == {"a": 1, "b": 3}
    assert patched.json()["status"] == "idle"
    assert (quiet.status_code, quiet.content) == (204, b"")
    assert (await client.delete(f"/threads/{thread}")).status_code == 204
    assert (await client.get(f"/threads/{thread}")).status_code == 404


async def test_a_search_tells_where_the_next_page_begins(client: httpx.AsyncClient) -> None:
    made = {await a_thread(client) for _ in range(5)}

    first = await client.post("/threads/search", json={"limit": 3})
    last = await client.post("/threads/search", json={"limit": 3, "offset": int(first.headers["x-pagination-next"])})

    assert {thread["thread_id"] for thread in [*first.json(), *last.json()]} == made
    assert (first.headers["x-pagination-next"], first.headers["x-pagination-total"]) == ("3", "4")
    assert "x-pagination-next" not in last.headers
    assert last.headers["x-pagination-total"] == "5"
    assert (await client.post("/threads/count", json={})).json() == 5


async def test_a_search_answers_the_fields_that_were_asked_for(client: httpx.AsyncClient) -> None:
    await a_thread(client)

    [thread] = (await client.post("/threads/search", json={"select": ["thread_id", "status"]})).json()

    assert set(thread) == {"thread_id", "status"}


async def test_a_thread_that_never_ran_has_an_empty_state(client: httpx.AsyncClient) -> None:
    thread = await a_thread(client)

    state = (await client.get(f"/threads/{thread}/state")).json()

    assert (state["values"], state["next"], state["checkpoint"]["thread_id"]) == ({}, [], thread)
    assert (await client.post(f"/threads/{thread}/history", json={"limit": 5})).json() == []
    assert (await client.get(f"/threads/{thread}/history?limit=5")).json() == []


async def test_state_is_changed_read_and_forked(client: httpx.AsyncClient) -> None:
    thread = await a_thread(client, metadata={"graph_id": "echo"})

    first = (await client.post(f"/threads/{thread}/state", json={"values": {"said": "one"}, "as_node": "echo"})).json()
    await client.post(f"/threads/{thread}/state", json={"values": {"said": "two"}, "as_node": "echo"})
    at = first["checkpoint"]["checkpoint_id"]

    assert (await client.get(f"/threads/{thread}/state")).json()["values"] == {"said": "two"}
    assert (await client.get(f"/threads/{thread}/state/{at}")).json()["values"] == {"said": "one"}
    by_post = await client.post(f"/threads/{thread}/state/checkpoint", json={"checkpoint": {"checkpoint_id": at}})
    assert by_post.json()["values"] == {"said": "one"}
    before = await client.post(f"/threads/{thread}/history", json={"before": first["checkpoint"], "limit": 10})
    assert before.json() == []
    history = (await client.post(f"/threads/{thread}/history", json={"limit": 10})).json()
    assert [state["values"] for state in history] == [{"said": "two"}, {"said": "one"}]
    wrong = await client.post(f"/threads/{thread}/state", json={"values": {"said": "x"}, "as_node": "nope"})
    assert wrong.status_code == 422


async def test_each_graph_has_an_assistant(client: httpx.AsyncClient) -> None:
    found = await client.post("/assistants/search", json={"metadata": {"created_by": "system"}, "graph_id": "echo"})

    [assistant] = found.json()
    assert assistant["name"] == assistant["graph_id"] == "echo"
    assert assistant["description"] == "Says it again"
    assert (await client.get(f"/assistants/{assistant['assistant_id']}")).json() == assistant
    assert (await client.get(f"/assistants/{uuid4()}")).status_code == 404
    assert (await client.post("/assistants/count", json={"name": "ECH"})).json() == 1
    assert (await client.post("/assistants/search", json={"name": "x"})).json() == []


@pytest.mark.parametrize("name", ["echo", str(ids.assistant_id("echo"))])
async def test_an_assistants_graph_is_drawn_and_described(client: httpx.AsyncClient, name: str) -> None:
    drawing = (await client.get(f"/assistants/{name}/graph?xray=1")).json()
    schemas = (await client.get(f"/assistants/{name}/schemas")).json()

    assert {node["id"] for node in drawing["nodes"]} >= {"__start__", "echo"}
    assert drawing["edges"][0]["source"] == "__start__"
    assert schemas["graph_id"] == "echo"
    assert "said" in schemas["input_schema"]["properties"]
    assert "said" in schemas["state_schema"]["properties"]
    assert (await client.get(f"/assistants/{name}/subgraphs?recurse=true")).json() == {}
    assert (await client.get(f"/assistants/{name}/subgraphs/nope")).status_code == 404


async def test_the_server_tells_what_it_serves_and_what_not(client: httpx.AsyncClient) -> None:
    info = (await client.get("/info")).json()

    assert info["graphs"] == {"echo": "ok", "broken": "ModuleNotFoundError in graph.py, line 3"}
    assert info["flags"]["assistants"] is True
    assert (await client.get("/ok")).json() == {"ok": True}


async def test_a_body_is_json_whatever_it_is_called(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/threads/search", content=json.dumps({"limit": 1}), headers={"content-type": "text/plain"}
    )

    assert answer.status_code == 200

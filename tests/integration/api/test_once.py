"""Idempotency-Key: a request whose answer was lost may be sent again."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.farm import FarmProcesses

GIVEN = {"assistant_id": "line", "input": {"log": []}}


def post(http: httpx.Client, path: str, key: str, body: dict[str, Any]) -> httpx.Response:
    return http.post(path, json=body, headers={"idempotency-key": key})


def run_of(response: httpx.Response) -> str:
    """By the header that each of the three ways to be answered has."""
    assert response.status_code == 200, response.text
    return response.headers["content-location"].rsplit("/", 1)[1]


@pytest.mark.parametrize("way", ["", "/wait", "/stream"])
@pytest.mark.parametrize("has_thread", [True, False])
def test_the_same_request_twice_is_one_run_with_the_same_answer(
    http: httpx.Client, farm: FarmProcesses, way: str, has_thread: bool
) -> None:
    place = f"/threads/{http.post('/threads', json={}).json()['thread_id']}/runs" if has_thread else "/runs"
    body = GIVEN if has_thread else {**GIVEN, "on_completion": "keep"}
    before = farm.query("SELECT count(*) FROM farm.run")[0][0]

    first = post(http, place + way, f"{place}{way}", body)
    again = post(http, place + way, f"{place}{way}", {key: body[key] for key in reversed(body)})
    other = post(http, place + way, f"{place}{way}", {**body, "metadata": {"other": 1}})

    assert run_of(first) == run_of(again)
    if way:
        assert first.text.strip() == again.text.strip()
    else:
        assert first.json()["run_id"] == again.json()["run_id"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert farm.query("SELECT count(*) FROM farm.run")[0][0] == before + 1


def test_of_two_clients_at_once_one_begins_the_run(http: httpx.Client, farm: FarmProcesses) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: run_of(post(http, "/runs", "at-once", GIVEN)), range(8)))

    assert len(set(found)) == 1


def test_a_key_is_the_tenants_own(http: httpx.Client, farm: FarmProcesses) -> None:
    with httpx.Client(base_url=farm.url, headers={"x-api-key": farm.keys["other"]}, timeout=30) as other:
        assert run_of(post(http, "/runs", "mine", GIVEN)) != run_of(post(other, "/runs", "mine", GIVEN))


@pytest.mark.parametrize("key", ["", "x" * 256, "two words"])
def test_a_key_that_is_none_is_refused(http: httpx.Client, key: str) -> None:
    assert post(http, "/runs", key, GIVEN).status_code == 422


def test_the_header_is_documented(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]

    for place in ("/threads/{thread_id}/runs", "/runs"):
        for way in ("", "/wait", "/stream"):
            headers = [one for one in paths[place + way]["post"]["parameters"] if one["in"] == "header"]
            assert [(one["name"], one["required"]) for one in headers] == [("Idempotency-Key", False)]

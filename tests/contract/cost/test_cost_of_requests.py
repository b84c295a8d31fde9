"""What a request costs the web process in Postgres, by HTTP, to a real one whose key is known and whose plans are made.

The worker goes to Postgres past the tap: what is counted is what the client's web process asks, before anything is
executed and to answer.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.farm import wait_for
from tests.services import WITH_TENANTS, FarmMaker, OwnDatabase
from tests.tap import PostgresListener, Tap

LINE = {"assistant_id": "line", "input": {"log": []}}


@dataclass
class Api:
    """As tenant demo; a thread with one run that is over."""

    http: httpx.Client
    thread: str
    run: str

    def get(self, path: str, **headers: str) -> None:
        self._told(self.http.get(path.format(thread=self.thread, run=self.run), headers=headers))

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self._told(self.http.post(path.format(thread=self.thread), json=body))

    def is_idle(self) -> bool:
        return bool(self.http.get(f"/threads/{self.thread}").json()["status"] == "idle")

    @staticmethod
    def _told(answer: httpx.Response) -> httpx.Response:
        assert answer.status_code == 200, answer.text
        assert "event: error" not in answer.text
        return answer


@dataclass(frozen=True, slots=True)
class Row:
    send: Callable[[Api], object]
    round_trips: int
    why: str


#: A transaction is BEGIN with the tenant, what is asked, COMMIT: three round trips, where one thing is asked. An
#: admission is one call.
ROWS: Mapping[str, Row] = {
    "a thread is made": Row(lambda api: api.post("/threads"), 4, "its row, and the row of its head"),
    "a thread is read": Row(lambda api: api.get("/threads/{thread}"), 7, "its row; its values, as a state"),
    "a state is read": Row(lambda api: api.get("/threads/{thread}/state"), 7, "its row; its head, and its writes"),
    "a run is read": Row(lambda api: api.get("/threads/{thread}/runs/{run}"), 3, "one transaction"),
    "a run is begun": Row(lambda api: api.post("/threads/{thread}/runs", **LINE), 1, "its admission"),
    "a run is streamed": Row(
        lambda api: api.post("/threads/{thread}/runs/stream", **LINE), 1, "its admission: all else is in its stream"
    ),
    "a run is waited for": Row(
        lambda api: api.post("/threads/{thread}/runs/wait", **LINE),
        2,
        "its admission; then where it ended, with the writes",
    ),
    "a run is streamed again": Row(
        lambda api: api.get("/threads/{thread}/runs/{run}/stream", **{"last-event-id": "-1"}),
        6,
        "whether it is this thread's, and whether it is over",
    ),
}


@pytest.fixture(scope="session")
def template(tenant_keys: Mapping[str, str]) -> str:
    return WITH_TENANTS


@pytest.fixture(scope="module")
def tap(database: OwnDatabase) -> Iterator[Tap]:
    with Tap(database.app_url, PostgresListener) as made:
        yield made


@pytest.fixture(scope="module")
def api(farm_over: FarmMaker, database: OwnDatabase, tap: Tap) -> Iterator[Api]:
    config = "contract/cost/langgraph.json"
    with farm_over(database, config, beat=False, DATABASE_URL=tap.url) as farm:
        farm.start_worker("past-the-tap", DATABASE_URL=database.app_url)
        with httpx.Client(base_url=farm.url, headers={"x-api-key": farm.keys["demo"]}, timeout=60) as http:
            made = Api(http, http.post("/threads", json={}).json()["thread_id"], "")
            begun = made.post("/threads/{thread}/runs/wait", **LINE)
            made.run = begun.headers["content-location"].rsplit("/", 1)[1]
            yield made


@pytest.mark.parametrize("name", ROWS)
def test_a_request_costs_as_many_round_trips_as_are_stated(api: Api, tap: Tap, name: str) -> None:
    row, counted = ROWS[name], []

    for _ in range(4):
        wait_for(api.is_idle, what="the end of the run before")  # on a busy thread an admission is decided twice
        before = tap.traffic()
        row.send(api)
        counted.append(tap.traffic() - before)

    # The least: the first makes connections and plans, and now and then a key is looked up again.
    least = min(counted, key=lambda traffic: traffic.round_trips)
    assert least.round_trips == row.round_trips, f"{name}: {row.round_trips} are stated ({row.why})\n{least}"

"""Clients that never stop asking for runs, and keep book of what was acknowledged and what they were told."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx

from examples.twelve_steps.graph import expected_digest
from tests.farm import FarmProcesses, wait_for


class Load:
    """Runs of twelve steps from several threads, one after another, on webs of which one may be away."""

    def __init__(self, farm: FarmProcesses, urls: Sequence[str] = (), *, clients: int = 3) -> None:
        self.farm = farm
        self.urls = list(urls) or [farm.url]
        self.acknowledged: dict[str, tuple[str, str]] = {}  # run → thread, seed
        self.told: Counter[str] = Counter()
        self.slowest = 0.0
        self._name = uuid.uuid4().hex
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(60)

    def _go_on(self, number: int) -> None:
        count = 0
        with httpx.Client(headers={"x-api-key": self.farm.keys["demo"]}, timeout=60) as client:
            while not self._ends.wait(0.3):
                seed = f"{number}-{count}"
                count += 1
                body = {
                    "assistant_id": "twelve_steps",
                    "input": {"delay_seconds": 0.05, "seed": seed},
                    "if_not_exists": "create",
                    "durability": ("sync", "async")[count % 2],
                }
                thread = self._ask(client, "/threads", {})
                run = thread and self._ask(client, f"/threads/{thread['thread_id']}/runs", body, key=seed)
                if thread and run:
                    self.acknowledged[str(run["run_id"])] = (str(thread["thread_id"]), seed)

    def _ask(self, client: httpx.Client, path: str, body: dict[str, object], *, key: str = "") -> dict[str, object]:
        """The answer, from whichever web gives one; {} when the test ends before.

        key  what was asked for and not answered may have been done: with a key, asking again does it once
        """
        turn, headers = 0, {"idempotency-key": f"{self._name}-{key}"} if key else {}
        while not self._ends.is_set():
            began = time.monotonic()
            try:
                answer = client.post(self.urls[turn % len(self.urls)] + path, json=body, headers=headers)
            except httpx.TransportError as error:
                self.told[type(error).__name__] += 1
            else:
                self.slowest = max(self.slowest, time.monotonic() - began)
                late = answer.status_code == 503 and "retry-after" not in answer.headers
                self.told[f"{answer.status_code}{' without retry-after' if late else ''}"] += 1
                if answer.status_code == 200:
                    told: dict[str, object] = answer.json()
                    return told
            turn += 1
            self._ends.wait(0.1)
        return {}

    def open(self) -> list[str]:
        """Runs that were acknowledged and are not over."""
        rows = self.farm.query(
            "SELECT run_id::text FROM farm.run WHERE run_id = ANY(%s::uuid[]) AND status <> 'success'",
            list(self.acknowledged),
        )
        return [row[0] for row in rows]

    def check(self, *, seconds: float = 60.0) -> float:
        """All that was acknowledged ends right, once. How long that took from now."""
        began = time.monotonic()
        wait_for(lambda: not self.open(), what=f"the end of all of {len(self.acknowledged)} runs", seconds=seconds)
        took = time.monotonic() - began
        there = self.farm.query("SELECT count(*) FROM farm.run WHERE run_id = ANY(%s::uuid[])", list(self.acknowledged))
        assert there == [(len(self.acknowledged),)]
        with httpx.Client(headers={"x-api-key": self.farm.keys["demo"]}, timeout=60) as client:
            for thread, seed in self.acknowledged.values():
                values = client.get(f"{self.urls[-1]}/threads/{thread}/state").json()["values"]
                assert (len(values["log"]), values["digest"]) == (12, expected_digest(seed)), thread
        return took

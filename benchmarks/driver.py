"""Starts runs as the web process does, from this process, and waits for their end.

Straight into `flow.admit`, without HTTP: what is measured is the workers, and a web process beside them would take a
share of the same cores. benchmarks/runs.py measures with HTTP.
"""

import time
from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from agentfarm import ids
from agentfarm.flow.admit import admit_run, build_run
from agentfarm.flow.farm import Farm
from agentfarm.records import RunRequest
from agentfarm.run_options import RunChoices
from agentfarm.tenancy import Tenant
from benchmarks.stock import INPUTS
from benchmarks.watcher import Watcher

Durability = Literal["sync", "async"]

#: Between two looks at the database. One look costs Postgres about 0.2 ms.
LOOK_SECONDS = 0.02

#: A run that takes longer is lost, and the measurement with it.
PATIENCE_SECONDS = 60.0


class Driver:
    """choices, durability: how its runs are to be executed"""

    def __init__(
        self,
        farm: Farm,
        tenant: Tenant,
        watcher: Watcher,
        choices: RunChoices = RunChoices(),  # noqa: B008  # frozen
        durability: Durability = "sync",
    ) -> None:
        self.farm, self.tenant, self.watcher, self.choices, self.durability = farm, tenant, watcher, choices, durability

    def asking(self, choices: RunChoices, *, durability: Durability = "sync") -> "Driver":
        return Driver(self.farm, self.tenant, self.watcher, choices, durability)

    def start(
        self,
        graph_id: str,
        run_input: Any = None,
        *,
        thread_id: UUID | None = None,
        stream_mode: Sequence[str] = (),
    ) -> UUID:
        """thread_id: None for a new thread."""
        request = RunRequest(
            assistant_id=graph_id,
            input=INPUTS[graph_id] if run_input is None else run_input,
            durability=self.durability,
            if_not_exists="create",
            stream_mode=stream_mode,
            streamed=bool(stream_mode),
            choices=self.choices,
        )
        new = build_run(self.farm, self.tenant, request, thread_id=thread_id or ids.new_id())
        return admit_run(self.farm, self.tenant, new).run_id

    def wait(self, run_ids: Sequence[UUID]) -> None:
        """Until all are over. Raises TimeoutError, or RuntimeError for one that did not succeed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while still := self.watcher.open_runs(run_ids):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(still)} of {len(run_ids)} runs are not over after {PATIENCE_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)
        if failed := self.watcher.failed_runs(run_ids):
            raise RuntimeError(f"{len(failed)} runs did not succeed: {failed}")

    def run(self, graph_id: str, run_input: Any = None, *, thread_id: UUID | None = None) -> UUID:
        run_id = self.start(graph_id, run_input, thread_id=thread_id)
        self.wait([run_id])
        return run_id

    def keep_running(
        self,
        graph_id: str,
        run_input: Any = None,
        *,
        in_flight: int,
        seconds: float,
        look_seconds: float = LOOK_SECONDS,
    ) -> list[UUID]:
        """As many runs at once for that long, then their end. Answers all of them. look_seconds: how long a run that
        is over may wait for the next to begin in its place."""
        started: list[UUID] = []
        live: list[UUID] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while len(live) < in_flight:
                live.append(self.start(graph_id, run_input))
                started.append(live[-1])
            time.sleep(look_seconds)
            still = self.watcher.open_runs(live)
            live = [run_id for run_id in live if run_id in still]
        self.wait(started)
        return started

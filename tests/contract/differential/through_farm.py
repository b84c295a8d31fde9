"""A scenario through a real farm: over HTTP by the official client, and what is then in the farm's database."""

import json
import os
from pathlib import Path
from typing import Any

from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import APIStatusError

from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Database
from agentfarm.persistence.serde import serde_of
from tests.contract.differential.scenario import (
    NOTHING,
    Record,
    Run,
    Scenario,
    StepRecord,
    Update,
    find_interrupts,
)
from tests.contract.differential.stock import stored
from tests.farm import FarmProcesses

#: Checkpoints of a thread that are compared; no scenario has as many.
MOST = 1000

#: How often a worker died while it executed a node of the thread.
LOST = "SELECT coalesce(sum(jsonb_array_length(lost_to)), 0) FROM farm.node_execution WHERE thread_id = %s"


def write_config(folder: Path, names: list[str]) -> Path:
    """A langgraph.json with the graphs of these scenarios (served.py has them by name)."""
    path = folder / "langgraph.json"
    graphs = {name: f"tests.contract.differential.served:{name}" for name in names}
    path.write_text(json.dumps({"dependencies": [os.path.relpath(Path.cwd(), folder)], "graphs": graphs}))
    return path


async def drive(scenario: Scenario, farm: FarmProcesses, client: LangGraphClient, database: Database) -> Record:
    """The whole scenario, on a new thread. Its tenant is the client's.

    database  the farm's, to look into it as its own code does
    """
    made = await client.threads.create(graph_id=scenario.name)
    driver = _Drive(scenario, client, made["thread_id"])
    for step in scenario.steps:
        done = await (driver.run(step) if isinstance(step, Run) else driver.update(step))
        driver.record.steps.append(done)
    driver.record.history = await driver.history()
    [(tenant_id,)] = farm.query("SELECT tenant_id FROM farm.thread WHERE thread_id = %s", driver.thread_id)
    saver = TenantSaver(database, tenant_id, serde_of(scenario.graph))
    driver.record.stored = stored(saver, driver.thread_id)
    driver.record.lost = int(farm.query(LOST, driver.thread_id)[0][0])
    driver.record.ids[str(tenant_id)] = "user"
    return driver.record


class _Drive:
    def __init__(self, scenario: Scenario, client: LangGraphClient, thread_id: str) -> None:
        self.scenario, self.client, self.thread_id = scenario, client, thread_id
        self.record = Record(ids={thread_id: "thread"})

    async def run(self, step: Run) -> StepRecord:
        options: dict[str, Any] = {
            name: list(nodes) if isinstance(nodes, tuple) else nodes
            for name in ("interrupt_before", "interrupt_after")
            if (nodes := getattr(step, name)) is not None
        }
        if step.at is not None:
            options["checkpoint_id"] = (await self.history())[step.at]["checkpoint_id"]
        command = await self._command(step)
        events: list[list[Any]] = []
        run_id = ""
        async for part in self.client.runs.stream(  # type: ignore[call-overload]  # the options of an overload
            self.thread_id,
            self.scenario.name,
            input=None if command else step.input,
            command=command,
            stream_mode=list(step.modes),
            stream_subgraphs=step.subgraphs,
            config=dict(step.config) or None,
            context=step.context,
            durability=step.durability,
            **options,
        ):
            if part.event == "metadata":
                run_id = part.data["run_id"]
            elif part.event != "end":
                events.append([part.event, part.data])
        run = await self.client.runs.get(self.thread_id, run_id)
        self.record.ids[run_id] = f"run {sum(name.startswith('run') for name in self.record.ids.values()) + 1}"
        self.record.ids[run["assistant_id"]] = "assistant"
        answer = await self.client.runs.join(self.thread_id, run_id)
        return StepRecord(events, answer, run["status"], *await self._afterwards())

    async def update(self, step: Update) -> StepRecord:
        place = None if step.at is None else (await self.history())[step.at]["checkpoint_id"]
        try:
            await self.client.threads.update_state(
                self.thread_id, step.values, as_node=step.as_node, checkpoint_id=place
            )
            status = "updated"
        except APIStatusError as error:
            if error.status_code not in (400, 422):
                raise
            status = "refused"
        return StepRecord([], None, status, *await self._afterwards())

    async def history(self) -> list[Any]:
        """Oldest first."""
        return [*await self.client.threads.get_history(self.thread_id, limit=MOST)][::-1]

    async def _afterwards(self) -> tuple[str, Any]:
        thread = await self.client.threads.get(self.thread_id)
        return thread["status"], await self.client.threads.get_state(self.thread_id, subgraphs=True)

    async def _command(self, step: Run) -> Any:
        command: dict[str, Any] = {}
        if step.resume is not NOTHING:
            command["resume"] = step.resume
        if step.answers is not None:
            state = await self.client.threads.get_state(self.thread_id)
            command["resume"] = find_interrupts(step.answers, state["interrupts"])
        if step.update is not None:
            command["update"] = step.update
        if step.goto is not None:
            command["goto"] = step.goto
        return command or None

"""A thread of each of two tenants, by the same id, and who admits runs to it."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from agentfarm.ids import new_id
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Databases
from agentfarm.persistence.runs import PostgresRuns
from agentfarm.persistence.serde import serde_of
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.tenancy import Tenant
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.runs.parts import own_writes


@pytest.fixture
def runs(home: Home) -> PostgresRuns:
    return PostgresRuns(Databases(home.app), lambda _: serde_of(None))


@pytest.fixture
def threads(home: Home) -> PostgresThreads:
    return PostgresThreads(Databases(home.app), lambda _: serde_of(None))


@pytest.fixture
def thread_id(threads: PostgresThreads, acme: Tenant, globex: Tenant) -> UUID:
    """The same id, of a thread of each tenant."""
    made = uuid4()
    for tenant in (acme, globex):
        threads.create(tenant, made, {}, if_exists="raise")
    return made


@pytest.fixture
def make_checkpoints(home: Home) -> Callable[..., list[str]]:
    """As a run's commits leave them: a line from the head, with blobs and writes."""

    def make(tenant: Tenant, run_id: UUID, thread_id: UUID, *, count: int = 2) -> list[str]:
        saver, made = TenantSaver(home.app, tenant.id, serde_of(None)), []
        for step in range(count):
            head = saver.get_tuple({"configurable": {"thread_id": str(thread_id)}})
            config: Any = head.config if head else {"configurable": {"thread_id": str(thread_id), "checkpoint_ns": ""}}
            version = saver.get_next_version(head.checkpoint["channel_versions"]["x"] if head else None)  # type: ignore[arg-type]
            checkpoint: Any = {
                **(head.checkpoint if head else {"v": 2, "ts": "", "versions_seen": {}, "updated_channels": None}),
                "id": str(new_id()),
                "channel_values": {"x": f"{run_id} {step} " * 50, "n": step},
                "channel_versions": {"x": version, "n": version},
            }
            saved = saver.put(
                config, checkpoint, {"source": "loop", "step": step, "run_id": str(run_id)}, {"x": version}
            )
            saver.put_writes(saved, [("x", step)], str(uuid4()))
            made.append(saved["configurable"]["checkpoint_id"])
        own_writes(home, run_id)
        return made

    return make

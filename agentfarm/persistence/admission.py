"""farm.admit (sql/admit.sql), called for a run: in one round trip where nobody moves its thread, else in a transaction
in which the thread is decided about under its lock (engine/contention.py).
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from agentfarm.engine.contention import Refuse, Start, Wait, decide_admission
from agentfarm.errors import AlreadyExists, NotFound, ThreadBusy
from agentfarm.messages import ExecuteNode
from agentfarm.persistence import wire
from agentfarm.persistence.caches import Cache
from agentfarm.persistence.database import Databases
from agentfarm.persistence.execution_keys import start_message
from agentfarm.persistence.jsonb import check_jsonb
from agentfarm.records import Admitted, Ended, NewRun, RunRow, RunStatus
from agentfarm.tenancy import Tenant

#: So many graphs of tenants a process knows to be in farm.graph_build; the others are asked for again.
MAX_KNOWN_BUILDS: Final = 10_000

ADMIT_ALONE: Final = wire.function(
    "admit_alone", "uuid uuid uuid uuid text text bytea jsonb text text bool bool text jsonb text text"
)
ADMIT: Final = text(
    """
    SELECT verdict, is_busy, waiting, started, started_graph, started_queue, ended, gone_epoch, created_at, updated_at,
           begun_under
      FROM farm.admit(:tenant, :thread, :run, :assistant, :graph, :strategy, :spec, :metadata, :inline, :tier,
                      :create, :forget, :then, :fingerprint, :manifest, :goes_on_from, :build)
    """
).bindparams(bindparam("metadata", type_=JSONB), bindparam("manifest", type_=JSONB(none_as_null=True)))

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Then = Literal["wait", "stop", "undo"]


class Admission:
    """build  whose workers are to execute the runs that are admitted here"""

    def __init__(self, databases: Databases, build: str) -> None:
        self._databases = databases
        self._build = build
        self._known_builds: Cache[bool] = Cache(MAX_KNOWN_BUILDS)  # whose manifests are stored

    def admit_alone(self, tenant: Tenant, new: NewRun, spec: bytes) -> Admitted | None:
        """A transaction of its own. None, and nothing was done, where there is something to be decided.

        raises  NotFound (no such thread), InvalidInput, StoreUnavailable: it may have been admitted
        """
        params = [_wired(value) for value in self._given(tenant, new, spec).values()]
        answer = self._databases.of(tenant).call(ADMIT_ALONE, params)
        verdict = answer.text("verdict")
        if verdict == "missing":
            raise NotFound(what="Thread")
        if verdict != "started":
            return None
        self.note(tenant, new)
        created, updated = (_EPOCH + timedelta(microseconds=answer.number(name)) for name in ("created", "updated"))
        start = start_message(tenant.id, tenant.home, new.run_id, new.graph_id, answer.text("started_queue"))
        return Admitted(_row(new, "running", created, updated), (start,))

    def admit(self, connection: Connection, tenant: Tenant, new: NewRun, spec: bytes) -> Row[Any]:
        """ADMIT's row, of a thread that is not busy any more. Raises ThreadBusy, InvalidInput."""
        answer = self._admit(connection, tenant, new, spec, then=None)
        if answer.verdict == "busy":
            decided = decide_admission(new.strategy, is_busy=answer.is_busy, waiting=answer.waiting)
            answer = self._admit(connection, tenant, new, spec, then=_then(decided))
        return answer

    def note(self, tenant: Tenant, new: NewRun) -> None:
        """A run of this build was admitted, with its graph's manifest."""
        self._known_builds.put(_build_key(tenant, new), True, 1)

    def _admit(
        self, connection: Connection, tenant: Tenant, new: NewRun, spec: bytes, *, then: Then | None
    ) -> Row[Any]:
        return connection.execute(ADMIT, {**self._given(tenant, new, spec), "then": then}).one()

    def _given(self, tenant: Tenant, new: NewRun, spec: bytes) -> dict[str, Any]:
        """What farm.admit_alone is told, in its order."""
        manifest = None if self._known_builds.get(_build_key(tenant, new)) else new.manifest
        return {
            "tenant": tenant.id,
            "thread": new.thread_id,
            "run": new.run_id,
            "assistant": new.assistant_id,
            "graph": new.graph_id,
            "strategy": new.strategy,
            "spec": spec,
            "metadata": check_jsonb("metadata", new.metadata),
            "inline": new.spec.inline,
            # What one worker executes whole has nothing to hand over.
            "tier": "postgres" if new.spec.inline else new.spec.options.persistence,
            "create": new.create_thread and not new.is_resume,  # what does not exist cannot be resumed
            "forget": new.forget_thread,
            "fingerprint": new.fingerprint,
            "manifest": manifest and check_jsonb("graph", manifest),
            "goes_on_from": new.goes_on_from,
            "build": self._build,
        }


def admitted_of(tenant: Tenant, new: NewRun, answer: Row[Any]) -> Admitted:
    """What ADMIT's row says. Raises NotFound, AlreadyExists."""
    if answer.verdict == "missing":
        raise NotFound(what="Thread")
    if answer.verdict == "exists":
        raise AlreadyExists("A run with this id exists already.")
    ended = tuple(Ended(tenant.id, tenant.home, run_id, new.thread_id, "interrupted") for run_id in answer.ended or ())
    row = _row(new, "running" if answer.verdict == "started" else "pending", answer.created_at, answer.updated_at)
    return Admitted(row, start_messages(tenant, answer), ended)


def start_messages(tenant: Tenant, answer: Row[Any]) -> tuple[ExecuteNode, ...]:
    """The start of the run that is next, if there is one."""
    if answer.started is None:
        return ()
    return (start_message(tenant.id, tenant.home, answer.started, answer.started_graph, answer.started_queue),)


def _then(decided: Start | Wait | Refuse) -> Then:
    match decided:
        case Refuse(reason):
            raise ThreadBusy(hint=reason)
        case Wait():
            return "wait"
        case Start(first="undo"):
            return "undo"
        case Start():
            return "stop"


def _build_key(tenant: Tenant, new: NewRun) -> bytes:
    return tenant.id.bytes + f"{new.fingerprint} {new.graph_id}".encode()


def _wired(value: UUID | str | bytes | bool | Mapping[str, Any] | None) -> wire.Param:
    match value:
        case None | bytes():
            return value
        case bool():
            return wire.put_bool(value)
        case UUID():
            return value.bytes
        case str():
            return value.encode()
        case _:
            return wire.put_jsonb(json.dumps(value, ensure_ascii=False).encode())


def _row(new: NewRun, status: RunStatus, created_at: datetime, updated_at: datetime) -> RunRow:
    return RunRow(
        run_id=new.run_id,
        thread_id=new.thread_id,
        assistant_id=new.assistant_id,
        graph_id=new.graph_id,
        status=status,
        strategy=new.strategy,
        metadata=new.metadata,
        error=None,
        created_at=created_at,
        updated_at=updated_at,
        finished_at=None,
        forget_thread=new.forget_thread,
        spec=new.spec,
    )

"""How a run ended and the state at which it did, in one round trip: what every client that waits is answered with."""

from typing import Final
from uuid import UUID

import orjson

from agentfarm.errors import NotFound
from agentfarm.persistence import wire
from agentfarm.persistence.bodies import make_head
from agentfarm.persistence.checkpoint_reads import Found, Place
from agentfarm.persistence.commits import writes_of
from agentfarm.persistence.database import Database
from agentfarm.records import RunEnd

READ_END: Final = wire.function("read_end", "uuid uuid uuid")


def read_end(database: Database, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> RunEnd:
    """Raises NotFound: the same for a run of another thread or tenant; StoreUnavailable."""
    answer = database.call(READ_END, [tenant_id.bytes, thread_id.bytes, run_id.bytes], again=True)
    if answer.raw("graph") is None:
        raise NotFound(what="Run")
    error = answer.raw("error")
    return RunEnd(
        run_id=run_id,
        thread_id=thread_id,
        graph_id=answer.text("graph"),
        is_over=answer.flag("is_over"),
        error=None if error is None else orjson.loads(error),
        head=answer.find_uuid("head"),
        state=_state(answer, thread_id),
    )


def _state(answer: wire.Answer, thread_id: UUID) -> Found | None:
    if (body := answer.raw("body")) is None:
        return None
    head = make_head(body, answer.items("blobs"))
    return Found.of(Place(thread_id, "", answer.uuid("head")), head, writes_of(answer))

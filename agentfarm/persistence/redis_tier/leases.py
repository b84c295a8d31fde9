"""Who works on what of a run that Redis moves."""

from dataclasses import dataclass
from uuid import UUID

from agentfarm.messages import ExecuteNode
from agentfarm.persistence.leases import Held
from agentfarm.persistence.redis_tier.scripts import Place


@dataclass(frozen=True, slots=True)
class Holder:
    """Which worker holds an execution in Redis, or held it when it was lost."""

    checkpoint_id: UUID
    execution_id: UUID
    worker: int


@dataclass(frozen=True, slots=True)
class RedisHeld(Held):
    """A lease in Redis; its fence is a token that no other lease has."""

    place: Place


def redis_held(place: Place, message: ExecuteNode, token: int, worker: int) -> RedisHeld:
    return RedisHeld(
        message.tenant_id, message.run_id, message.checkpoint_id, message.execution_id, token, worker, place=place
    )

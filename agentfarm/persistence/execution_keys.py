"""Messages, leases and cache keys of node executions, made of each other."""

from dataclasses import replace
from uuid import UUID

from agentfarm.engine.steps import NodeCall, RunSpec
from agentfarm.ids import ZERO
from agentfarm.messages import ExecuteNode, at_build
from agentfarm.persistence.leases import Held


def start_message(tenant_id: UUID, home: str, run_id: UUID, graph_id: str, queue: str) -> ExecuteNode:
    """The first message of a run."""
    return ExecuteNode(tenant_id, home, run_id, checkpoint_id=ZERO, execution_id=run_id, graph_id=graph_id, queue=queue)


def message_of(message: ExecuteNode, run: RunSpec, call: NodeCall) -> ExecuteNode:
    return replace(
        message,
        checkpoint_id=UUID(call.checkpoint_id),
        execution_id=UUID(call.execution_id),
        graph_id=run.graph_id,
        node=call.name,
        queue=at_build(call.queue or "", message.build),
    )


def held_of(message: ExecuteNode, fence: int, worker: int) -> Held:
    return Held(message.tenant_id, message.run_id, message.checkpoint_id, message.execution_id, fence, worker)


def key_of(of: ExecuteNode | Held) -> bytes:
    return b"".join(part.bytes for part in (of.tenant_id, of.run_id, of.checkpoint_id, of.execution_id))


def run_key(of: ExecuteNode | Held) -> bytes:
    return of.tenant_id.bytes + of.run_id.bytes


def head_key(message: ExecuteNode, checkpoint_id: UUID) -> bytes:
    return message.tenant_id.bytes + checkpoint_id.bytes

"""Checkpoint ids that never go back: max(now, parent + 1), whatever this worker's clock says.

The latest checkpoint of a thread is the one with the highest id, and LangGraph takes ids from the clock: a worker that
is an hour behind would write a step which nobody sees as the latest.
"""

from typing import Any

from langgraph.checkpoint.base import Checkpoint

from agentfarm.engine import _langgraph as lg

_TIMESTAMP_MASK = (1 << 60) - 1


def id_after(parent_id: str, step: int) -> str:
    """A new id that sorts after `parent_id`.

    step  becomes the clock sequence, as in stock
    """
    new = lg.uuid6(clock_seq=step)
    if str(new) > parent_id:
        return str(new)
    parent = lg.UUID(parent_id)
    if parent.version != 6:
        return str(new)
    timestamp = (parent.time + 1) & _TIMESTAMP_MASK
    bits = (timestamp >> 12) << 80 | (timestamp & 0x0FFF) << 64 | (step & 0x3FFF) << 48 | (new.int & ((1 << 48) - 1))
    return str(lg.UUID(int=bits, version=6))


def create_checkpoint(
    checkpoint: Checkpoint, channels: Any, step: int, *, id: str | None = None, **kwargs: Any
) -> Checkpoint:
    """Stock's, with such an id unless one is given."""
    return lg.create_checkpoint(checkpoint, channels, step, id=id or id_after(checkpoint["id"], step), **kwargs)

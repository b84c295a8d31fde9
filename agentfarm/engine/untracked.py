"""Values of UntrackedValue channels on their way from one message of a run to the next.

Stock keeps such a value in memory: for all of one run, and in no checkpoint. Here the next node may be executed by
another process, so the value goes with the call, by value, and nowhere else: a second attempt finds what the first one
found, history and state never show it, and the next run of the thread starts without it, as in stock.

What cannot go that way (a connection, a process, something big) keeps the run where it is: the worker executes the next
superstep itself, in the same message (docs/decisions/0008).
"""

from collections.abc import Mapping
from typing import Any

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.steps import Carried

#: All of a call's, serialised. They are written anew with every node, so what is bigger is cheaper to keep at hand.
MAX_BYTES = 64 * 1024


class CannotTravel(Exception):
    """A value stays in this process, whether it is live or too big."""


def has_untracked(channels: Mapping[str, Any]) -> bool:
    return any(isinstance(channel, lg.UntrackedValue) for channel in channels.values())


def names_of_untracked(channels: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(name for name, channel in channels.items() if isinstance(channel, lg.UntrackedValue))


def may_leave(loop: Any) -> bool:
    """Whether all that the open superstep needs of such channels can go with a call.

    Not with several nodes: what they write there is saved with none of them, so whoever applies the superstep must be
    who executed it. Not to a node made by Send with such a key: no checkpoint keeps that either.
    """
    if len(loop.tasks) > 1:
        return False
    sends = loop.channels[lg.TASKS]
    return not (sends.is_available() and any(_names_one(packet, loop.channels) for packet in sends.get()))


def pack(loop: Any) -> Carried | None:
    """The values as they are now, also what a node has changed in place; None when there are none.

    raises  CannotTravel
    """
    values = {
        name: channel.get()
        for name, channel in loop.channels.items()
        if isinstance(channel, lg.UntrackedValue) and channel.is_available()
    }
    if not values:
        return None
    try:
        carried = Carried(*loop.checkpointer.serde.dumps_typed(values))
    except Exception as error:  # whatever a value raises when it is to be saved, it is not one that travels
        raise CannotTravel from error
    if len(carried.data) > MAX_BYTES:
        raise CannotTravel
    return carried


def unpack(loop: Any, carried: Carried) -> None:
    """Into the channels of a loop that has loaded its checkpoint. A graph that has lost the channel leaves it out."""
    values = loop.checkpointer.serde.loads_typed((carried.kind, carried.data))
    for name, value in values.items():
        if isinstance(channel := loop.channels.get(name), lg.UntrackedValue):
            channel.update([value])


def _names_one(packet: Any, channels: Mapping[str, Any]) -> bool:
    arg = getattr(packet, "arg", None)
    return isinstance(arg, dict) and any(isinstance(channels.get(key), lg.UntrackedValue) for key in arg)

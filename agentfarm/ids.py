"""Ids that sort by time, and the parsing of ids that come from outside.

Every id of ours is a UUID: a path traversal, a wildcard or a quote can never be one, so whatever
passes `parse_uuid` may become part of a key, a path or a statement.
"""

import os
import time
import uuid

from agentfarm.errors import InvalidId

#: The checkpoint of a run that has not loaded one yet (its `start` execution), and the execution id of an advance.
ZERO = uuid.UUID(int=0)

#: Ids of the default assistants are uuid5(ASSISTANTS, graph id), so that every process gives the same.
ASSISTANTS = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


def new_id() -> uuid.UUID:
    """A UUIDv7: milliseconds since 1970, then 74 random bits. Sorts by creation, to the millisecond."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10)) & ((1 << 74) - 1)
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | (random >> 62) << 64
    value |= 0b10 << 62 | (random & ((1 << 62) - 1))
    return uuid.UUID(int=value)


def assistant_id(graph_id: str) -> uuid.UUID:
    """The id of the default assistant of a graph; the same in every process and for every tenant."""
    return uuid.uuid5(ASSISTANTS, graph_id)


def parse_uuid(text: object, *, what: str) -> uuid.UUID:
    """The id that a client sent.

    what    how the error names it, for example "thread_id"
    raises  InvalidId; the value itself is not repeated, since it may be anything
    """
    if isinstance(text, uuid.UUID):
        return text
    if isinstance(text, str) and len(text) in (32, 36):
        try:
            return uuid.UUID(text)
        except ValueError:
            pass
    raise InvalidId(what=what)

"""One run's stream in Redis: its key, how entries are written and read. No thread, no task, no connection."""

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

from agentfarm.records import Event
from agentfarm.redis_clients import Script

#: The event that ends every run's stream. Nothing is added after it (append.lua sees to that).
END: Final = "end"

#: A run that is not over keeps its events this long after the last one. Its end shortens this to the configured time;
#: a run whose end was never told (the healer tells it) must not stay for ever.
OPEN_SECONDS: Final = 7 * 24 * 3600


APPEND: Final = Script.of_files(__package__, ["append.lua"])
READ: Final = Script.of_files(__package__, ["read.lua"])


def stream_key(tenant_id: UUID, run_id: UUID) -> str:
    """Of the stream, and of the channel that wakes its readers. Hex digits and colons only."""
    return f"t:{tenant_id.hex}:run:{run_id.hex}:events"


@dataclass(slots=True)
class Batch:
    """Events for one stream that are added together or not at all."""

    key: str
    events: list[Event] = field(default_factory=list)
    seconds: int = OPEN_SECONDS
    token: str = field(default_factory=lambda: uuid4().hex[:12])
    again: bool = False

    def arguments(self, *, keep: int) -> list[str | bytes | int]:
        """ARGV of append.lua."""
        told: list[str | bytes | int] = [keep, self.seconds, self.token, "again" if self.again else "new"]
        for event in self.events:
            told += (event.name, event.data)
        return told


def parse_page(entries: Any) -> list[Event]:
    """Entries as redis-py answers XREVRANGE: [(id, {field: value})], all bytes."""
    return [Event(name=fields[b"n"].decode(), data=fields[b"d"], id=id_.decode()) for id_, fields in entries or ()]


def parse_entries(entries: Any) -> list[Event]:
    """Entries as a script answers them: [[id, [b"n", name, b"d", data, …]]], all bytes."""
    return [Event(name=fields[1].decode(), data=fields[3], id=id_.decode()) for id_, fields in entries]

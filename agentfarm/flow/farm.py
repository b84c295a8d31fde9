"""The farm as a process holds it: the graphs it serves and its ways to the stores, the queue and the streams.

Built by `agentfarm.wiring` and handed to every station; nothing in the flow reaches for it.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentfarm.engine.graphs import GraphRegistry
from agentfarm.flow.ahead import Quiet
from agentfarm.flow.ports import Backlog, EventLog, Executions, Healing, NodeCaches, Publisher, Runs, Stores, Threads
from agentfarm.flow.wave import Waves
from agentfarm.run_options import RunAhead
from agentfarm.tenancy import Tenant


class Keys(Protocol):
    """tenants/keys.py over a function that looks a key's id up."""

    def find(self, raw_key: str) -> Tenant | None:
        """Whose key this is, in constant time; None for a wrong or revoked one (revoked is dead within a second)."""

    def anonymous(self) -> Tenant | None:
        """The tenant of requests without a key, for development on loopback; None where a key is needed."""


@dataclass(frozen=True, slots=True)
class Farm:
    """Everything a station needs.

    run_async              runs a coroutine on the process's one event loop and waits for it: async nodes and factories
    retry_message_seconds  from this delay on a RetryPolicy's next try is a message of its own; None: it is slept
    run_ahead              the farthest that a worker goes ahead with a run, and as far as one goes that does not say
    backlog                whether other work waits for this worker
    waves                  which siblings are taken one after the other
    """

    graphs: GraphRegistry
    executions: Executions
    runs: Runs
    threads: Threads
    stores: Stores
    healing: Healing
    publisher: Publisher
    log: EventLog
    caches: NodeCaches
    keys: Keys
    run_async: Callable[[Coroutine[Any, Any, Any]], Any]
    retry_message_seconds: float | None = None
    run_ahead: RunAhead = field(default_factory=RunAhead)
    backlog: Backlog = field(default_factory=Quiet)
    waves: Waves = field(default_factory=Waves)

"""Which queues there are. A graph says "io" or "gpu"; the broker knows "io.v1" or "gpu.v1".

The version is for the day on which a message's form, or a queue's arguments, change: the new workers then read new
queues while the old ones empty theirs, since RabbitMQ refuses to declare a queue with other arguments than it has.

Where the operator runs several builds side by side (AGENTFARM_BUILD), each has queues of its own: rows and messages say
"gpu@1.4" (messages.at_build), the broker "gpu.v1.b-1_4". A dot of the build becomes "_", which no build has.
"""

import re
from collections.abc import Iterable

from agentfarm.conf import Settings
from agentfarm.errors import Misconfigured
from agentfarm.messages import at_build, split_build

VERSION = "v1"

#: Threads: nodes that wait for models and services. The default of every node that names no queue.
IO = "io"

#: Prefork: nodes that compute, or whose code one does not trust with a whole worker.
CPU = "cpu"

#: What was lost with two workers; persistence/sql/heal.sql puts it there. Executed one at a time (`-c 1`), so that it
#: takes nothing else along.
QUARANTINE = "quarantine"

#: No dot: RabbitMQ's topic exchanges split routing keys there, and a delayed message for "a.io" would reach "io" too.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")


def queue_names(settings: Settings, of_graphs: Iterable[str] = ()) -> tuple[str, ...]:
    """Every queue of this farm, as graphs name them: the defaults, the operator's, and those that nodes ask for.

    raises  Misconfigured for a name that no broker would take
    """
    names = dict.fromkeys((settings.default_queue, IO, CPU, QUARANTINE, *settings.extra_queues, *sorted(of_graphs)))
    for name in names:
        if not _NAME.fullmatch(name):
            raise Misconfigured(
                f"Queue {name!r} cannot be: a queue's name has 1 to 48 of a-z, 0-9, '_' and '-'. Queues are named by "
                "AGENTFARM_DEFAULT_QUEUE, by AGENTFARM_QUEUES and by add_node(…, metadata={'queue': …})."
            )
    return tuple(names)


def broker_name(queue: str) -> str:
    """How the broker names a queue, of a build ("gpu@1.4") or of none."""
    name, build = split_build(queue)
    return f"{name}.{VERSION}" + (f".b-{build.replace('.', '_')}" if build else "")


def graph_name(broker_queue: str) -> str:
    """What `broker_name` was made of."""
    name, _, of_build = broker_queue.partition(f".{VERSION}")
    return at_build(name, of_build.removeprefix(".b-").replace("_", "."))

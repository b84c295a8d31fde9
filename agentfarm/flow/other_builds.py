"""Whether this worker's build of a graph can go on with what another build has begun.

The door has looked already (admit.py), but at the build of its own process. A run that is under way while the graph
changes, or that waited behind another, is found out here: LangGraph would pass over a node that it does not know, and
read a channel of another kind as empty.
"""

from agentfarm.engine.continuation import decide_continuation, stored_channels
from agentfarm.engine.graphs import LoadedGraph
from agentfarm.errors import GraphChanged
from agentfarm.flow.farm import Farm
from agentfarm.records import Claimed
from agentfarm.tenancy import Tenant


def check_node(loaded: LoadedGraph, claimed: Claimed) -> None:
    """Raises GraphChanged where the graph has lost the node that is to be executed."""
    if claimed.call is None:
        return
    name = claimed.call.chain()[0].name  # of the graph itself: what is inside of a subgraph's node, that node knows
    if name not in loaded.graph.nodes:
        raise GraphChanged(graph_id=loaded.graph_id, why=f"node {name!r}, which is next, is gone")


def is_of_another_build(loaded: LoadedGraph, claimed: Claimed) -> bool:
    """Whether the run was asked for under another build, so that `check_channels` is to look. Never of a graph that a
    factory makes: it may make one to be read (which the door has seen) and another one to be executed."""
    return claimed.run.fingerprint not in ("", loaded.fingerprint) and not loaded.is_made


def check_channels(farm: Farm, tenant: Tenant, loaded: LoadedGraph, claimed: Claimed) -> None:
    """Read under which channels the run was begun, and, where these have changed too much, which of them hold a value.

    raises  GraphChanged where a stored value is not one that its channel can take; StoreUnavailable
    """
    old = farm.runs.find_manifest(tenant, loaded.graph_id, claimed.run.fingerprint)
    if old is None or decide_continuation(old, loaded.manifest, pending=(), stored=old["channels"]) is None:
        return
    if claimed.call is not None:
        checkpoint_id = claimed.call.chain()[0].checkpoint_id
    else:
        checkpoint_id = claimed.run.config["configurable"].get("checkpoint_id")
    checkpoint = farm.threads.outline(tenant, claimed.thread_id, checkpoint_id)
    if checkpoint is None:
        return
    stored = stored_channels(old, checkpoint)
    if why := decide_continuation(old, loaded.manifest, pending=(), stored=stored):
        raise GraphChanged(graph_id=loaded.graph_id, why=why)

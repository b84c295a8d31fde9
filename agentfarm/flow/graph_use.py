"""The one way by which the flow uses a graph: opened for a request, and closed when the request has what it wanted.

A graph that is compiled once a process is simply there. One that a factory makes is made anew for every segment and
every look, by whichever process serves it, with the config and for the tenant of that request.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar
from uuid import UUID

from langgraph.store.base import BaseStore

from agentfarm import ids
from agentfarm.engine.graph_access import Access, Caller, Purpose
from agentfarm.engine.graphs import LoadedGraph
from agentfarm.flow.farm import Farm
from agentfarm.records import Claimed

T = TypeVar("T")

#: Keys of `configurable` that the server sets; a client's are dropped, as the Agent Server drops them.
RESERVED = frozenset(
    {"thread_id", "run_id", "graph_id", "assistant_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map"}
)


def use_graph(
    farm: Farm,
    graph_id: str,
    access: Callable[[], Access],
    work: Callable[[LoadedGraph], T],
    awork: Callable[[LoadedGraph], Coroutine[Any, Any, T]] | None = None,
    *,
    failure: Callable[[T], BaseException | None] = lambda answer: None,
) -> T:
    """What the work answers, with the graph open around it and nothing else.

    access   why and for whom; asked only where a factory makes the graph
    awork    the same work for a graph that runs async (docs/decisions/0002); without it, `work` does for both
    failure  the error that an answer reports: a factory's context manager is left as if it had been raised
    raises   GraphNotFound, GraphLoadFailed (with the factory's own error as its cause), and what the work raises
    """
    opening = farm.graphs.open(graph_id, access)
    if opening.is_async:
        answer: T = farm.run_async(_ause(opening, work, awork, failure))
        return answer
    with opening as loaded:
        answer = farm.run_async(awork(loaded)) if awork is not None and loaded.is_async else work(loaded)
        opening.failed_with(failure(answer))
        return answer


async def _ause(
    opening: Any,
    work: Callable[[LoadedGraph], T],
    awork: Callable[[LoadedGraph], Coroutine[Any, Any, T]] | None,
    failure: Callable[[T], BaseException | None],
) -> T:
    """In one task: what an async factory opens may have to be closed by the task that opened it (anyio)."""
    async with opening as loaded:
        answer = await (awork(loaded) if awork is not None else asyncio.to_thread(work, loaded))
        opening.failed_with(failure(answer))
        return answer


# --------------------------------------------------------------------------- why, and for whom


def executing(claimed: Claimed, store: BaseStore) -> Access:
    """To execute a node of a run."""
    run, tenant_id = claimed.run, claimed.message.tenant_id
    context = run.kwargs.get("context")
    if context is None:
        context = clients_own(run.config.get("configurable") or {}) or None
    caller = Caller(str(tenant_id))
    return Access("threads.create_run", run.graph_id, config=run.config, context=context, caller=caller, store=store)


def looking(
    purpose: Purpose,
    tenant_id: UUID,
    graph_id: str,
    config: Mapping[str, Any] | None = None,
    *,
    store: BaseStore | None = None,
    **more: str,
) -> Access:
    """To read or to change what is there, or to check a request: no node is executed.

    config  of the run that is meant, if there is one
    more    for its `configurable`
    """
    given = config or {}
    configurable = {
        **(given.get("configurable") or {}),
        "graph_id": graph_id,
        "assistant_id": str(ids.assistant_id(graph_id)),
        "langgraph_auth_user_id": str(tenant_id),
        **more,
    }
    whole = {**given, "configurable": configurable}
    return Access(purpose, graph_id, config=whole, caller=Caller(str(tenant_id)), store=store)


def clients_own(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a client may set: not what the server, its authentication or LangGraph puts there."""
    return {
        key: value
        for key, value in given.items()
        if key not in RESERVED and not key.startswith(("__", "langgraph_auth_"))
    }

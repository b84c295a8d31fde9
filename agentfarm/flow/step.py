"""Stations 4 to 6: claim one node execution, execute it, commit what it wrote, send what is next.

No transaction and no connection is open while the node runs. Whatever goes wrong in between leaves one of two things: a
lease that another worker takes over (this process died), or a run that ended with an error that says why. Never a lease
that nobody works on.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

from agentfarm import clock
from agentfarm.engine import run_events
from agentfarm.engine.events import EventRenderer
from agentfarm.engine.graphs import LoadedGraph
from agentfarm.engine.jsonable import to_json
from agentfarm.engine.segment import SegmentRequest, arun_segment, run_segment
from agentfarm.engine.steps import SegmentResult
from agentfarm.errors import GraphChanged, GraphLoadFailed, LeaseLost, Stale, Unavailable
from agentfarm.flow.ahead import Ahead
from agentfarm.flow.dispatch import dispatch
from agentfarm.flow.farm import Farm
from agentfarm.flow.graph_use import executing, use_graph
from agentfarm.flow.other_builds import check_channels, check_node, is_of_another_build
from agentfarm.flow.settle import announce
from agentfarm.messages import ExecuteNode
from agentfarm.records import Claimed, Committed, Event, Refused
from agentfarm.tenancy import Tenant

logger = logging.getLogger(__name__)

Outcome = Literal["committed", "gone", "busy", "fenced"]


#: Around each node that is executed without a message of its own, for whoever watches the workers. Told its outcome.
Tell = Callable[[ExecuteNode], AbstractContextManager[Callable[[Outcome], None]]]


def _tell_nobody(message: ExecuteNode) -> AbstractContextManager[Callable[[Outcome], None]]:
    return nullcontext(lambda outcome: None)


def execute_node(farm: Farm, message: ExecuteNode, *, redelivered: bool = False, tell: Tell = _tell_nobody) -> Outcome:
    """One message: usually one node execution; a start goes on with its first node, a last sibling with the advance,
    and a run that may go ahead with its next nodes (ahead.py).

    returns  "committed"; "gone": nothing was left to do; "busy": a living worker holds it (the healer watches it, so
             the message may go); "fenced": another worker took it over while it ran here, nothing was saved
    raises   Unavailable, when the database did not answer: the message is to be delivered again
    """
    claimed = farm.executions.claim(message)
    if isinstance(claimed, Refused):
        if redelivered and claimed.why == "gone":
            # The first delivery may have died after its commit and before it published what came next.
            dispatch(farm, farm.executions.open_at_head(message))
        return claimed.why
    ahead = Ahead(claimed, farm.run_ahead, farm.backlog)
    work: Claimed | None = claimed
    telling = _tell_nobody(message)
    with farm.waves.part() as wave:
        while work is not None:
            with telling as told, wave.at(work):
                committed = _execute_and_commit(farm, work, ahead)
                told("fenced" if committed is None else "committed")
            if committed is None:
                dispatch(farm, farm.executions.rest_of_wave(work))
                return "fenced"
            dispatch(farm, committed.ready)
            if committed.ended is not None:
                announce(farm, [committed.ended])
            telling = _tell_nobody(message)
            if committed.leased is not None and work.kind != "start":
                telling = tell(committed.leased.message)
                if committed.leased.message.checkpoint_id != work.message.checkpoint_id:
                    ahead.note()
            work = committed.leased or committed.advance
    return "committed"


def _execute_and_commit(farm: Farm, claimed: Claimed, ahead: Ahead) -> Committed | None:
    """None: fenced out, nothing was saved."""
    sink = _Sink(farm, claimed)
    try:
        began = clock.monotonic_seconds()
        result = _run_segment(farm, claimed, sink)
        if claimed.call is not None and claimed.kind == "node":
            farm.waves.durations.note(claimed.run.graph_id, claimed.call.name, clock.monotonic_seconds() - began)
        if sink.has_spoken:
            _publish_events(farm)
        return _commit(farm, claimed, result, ahead)
    except LeaseLost as error:
        logger.warning("fenced out", extra={"code": error.code, **_ids(claimed)})
        return None
    except Unavailable:
        farm.executions.release(claimed)
        raise


def _commit(farm: Farm, claimed: Claimed, result: SegmentResult, ahead: Ahead) -> Committed:
    wake = None
    if result.outcome is not None:
        goes_on = claimed.in_wave and ahead.goes_on_among(claimed)
    else:
        wake = farm.waves.plan(claimed, result) if ahead.may_spread else None
        goes_on = claimed.kind == "start" or wake is not None or (bool(result.next) and ahead.goes_on_after(claimed))
    try:
        return farm.executions.commit(claimed, result, lease_next=goes_on, wake=wake)
    except (LeaseLost, Unavailable):
        raise
    except Exception as error:  # what cannot be saved ends the run: a lease kept for ever would be worse
        logger.exception("a segment could not be saved", extra=_ids(claimed))
        return farm.executions.commit(claimed, _failed(error))


def _run_segment(farm: Farm, claimed: Claimed, sink: "_Sink") -> SegmentResult:
    """Execute, sending events as they are made. The node's own errors are in the result."""
    if claimed.unreadable is not None:
        return _failed(claimed.unreadable)
    request = SegmentRequest(
        kind=claimed.kind,
        run=claimed.run,
        call=claimed.call,
        attempt=claimed.attempt,
        settled=dict(claimed.settled),
        failed=claimed.failed,
    )
    if claimed.kind == "start" and claimed.run.modes:
        sink.tell_metadata()
    store = farm.stores.of(_tenant(claimed))

    def stores(loaded: LoadedGraph) -> dict[str, Any]:
        check_node(loaded, claimed)
        made = loaded.graph if loaded.is_made else None
        if made is not None:  # with classes of its own, which nobody knew when the claim was made
            farm.executions.know_types(claimed, made)
        tenant_id, shape = claimed.message.tenant_id, loaded.fingerprint
        cache = farm.caches.of(tenant_id, loaded.graph_id, fingerprint=shape, made=made)
        return {"saver": claimed.saver, "store": store, "cache": cache, "sink": sink}

    def run(loaded: LoadedGraph) -> SegmentResult:
        if is_of_another_build(loaded, claimed):
            check_channels(farm, _tenant(claimed), loaded, claimed)
        if run_events.MODE in claimed.run.modes:
            # Made by `astream` alone; a loop of its own, whose threads are no other run's.
            return asyncio.run(arun_segment(loaded.graph, request, **stores(loaded)))
        return run_segment(loaded.graph, request, **stores(loaded))

    async def arun(loaded: LoadedGraph) -> SegmentResult:
        if is_of_another_build(loaded, claimed):
            await asyncio.to_thread(check_channels, farm, _tenant(claimed), loaded, claimed)
        return await arun_segment(loaded.graph, request, **stores(loaded))

    access = partial(executing, claimed, store)
    try:
        result = use_graph(farm, claimed.run.graph_id, access, run, arun, failure=lambda result: result.error)
    except (LeaseLost, Unavailable):
        raise
    except (Stale, GraphChanged) as error:  # this worker's graph has lost the node, or its place, or a channel's kind
        return _failed(error)
    except GraphLoadFailed as error:
        if error.__cause__ is not None:  # its factory's own, which ends the run as a node's would
            return _failed(error.__cause__)
        logger.exception("a worker cannot load a graph", extra={"graph_id": claimed.run.graph_id, **_ids(claimed)})
        return _failed(error)
    except Exception as error:  # a bug of ours
        logger.exception("a segment failed outside of its node", extra=_ids(claimed))
        return _failed(error)
    if result.error is not None:
        # For whoever wrote the graph: the run keeps the error's type and text, and the log says where it was raised.
        logger.warning(
            "a node failed", exc_info=result.error, extra={"graph_id": claimed.run.graph_id, **_ids(claimed)}
        )
    return result


class _Sink:
    """Takes each chunk the moment the node makes it, from whatever thread. Must neither block nor raise."""

    def __init__(self, farm: Farm, claimed: Claimed) -> None:
        self.log = farm.log
        self.tenant_id, self.run_id = claimed.message.tenant_id, claimed.message.run_id
        self.attempt = claimed.attempt
        self.has_spoken = False
        self.renderer = EventRenderer(claimed.run.modes, subgraphs=bool(claimed.run.kwargs.get("subgraphs")))

    def tell_metadata(self) -> None:
        self._append("metadata", {"run_id": str(self.run_id), "attempt": self.attempt})

    def __call__(self, chunk: object) -> None:
        for name, payload in self.renderer.render(chunk):
            self._append(name, payload)

    def _append(self, name: str, payload: object) -> None:
        self.has_spoken = True
        self.log.append(self.tenant_id, self.run_id, Event(name, to_json(payload)))


def _publish_events(farm: Farm) -> None:
    """Before the commit: what a worker had not sent when it died after it, nobody would say again. So a stream has all
    that committed segments said, in their order; of one that did not commit, at times a part."""
    try:
        farm.log.flush()
    except Unavailable as error:
        logger.warning("events of a stream are late or lost", extra={"code": error.code})


def _failed(error: BaseException) -> SegmentResult:
    return SegmentResult(status="error", error=error)


def _tenant(claimed: Claimed) -> Tenant:
    return Tenant(claimed.message.tenant_id, slug="", home=claimed.message.home)


def _ids(claimed: Claimed) -> dict[str, str]:
    message = claimed.message
    return {
        "run_id": str(message.run_id),
        "execution_id": str(message.execution_id),
        "node": claimed.call.name if claimed.call else claimed.kind,
    }

"""The one node that a segment executes, as LangGraph prepares it, with what a message adds: which attempt this is,
retries as messages, and how a graph that it runs goes on after a worker died.

A node finds its idempotency key in `runtime.execution_info.task_id` (the execution id: the same in every attempt, on
every worker) and the number of the attempt in `runtime.execution_info.node_attempt`.
"""

import binascii
import math
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langgraph.errors import GraphBubbleUp
from langgraph.types import CacheKey, RetryPolicy

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.levels import Level
from agentfarm.errors import Stale

#: Where a node's config brings `Execution` to the graphs that the node runs.
EXECUTION = "__pregel_agentfarm_execution"


class RetryLater(GraphBubbleUp):
    """The node failed, and its RetryPolicy wants another try after so many seconds.

    tries  that have failed by now, on whatever workers
    """

    def __init__(self, seconds: float, tries: int) -> None:
        super().__init__(seconds, tries)
        self.seconds, self.tries = seconds, tries


@dataclass(slots=True)
class Execution:
    """What the graphs that a node runs must know of it (children.py).

    nodes      of the subgraph whose nodes are to be messages, until it was entered; None: there is none
    continues  an earlier attempt of the node died: graphs that it had begun go on from their checkpoints
    saving     the last checkpoint that each of them has handed to the saver, by namespace: a Future of its loop's kind
    """

    level: Level
    task_id: str
    nodes: Any = None
    continues: bool = False
    saving: dict[str, Any] = field(default_factory=dict)


def prepare(loop: Any, level: Level) -> Any:
    """LangGraph's task of the level's call, ready to be executed.

    raises  Stale when the superstep at this checkpoint has no such execution
    """
    call = level.named
    task: Any = lg.prepare_single_task(
        call.path,
        call.execution_id,
        checkpoint=loop.checkpoint,
        checkpoint_id_bytes=binascii.unhexlify(loop.checkpoint["id"].replace("-", "")),
        checkpoint_null_version=lg.checkpoint_null_version(loop.checkpoint),
        pending_writes=loop.checkpoint_pending_writes,
        processes=loop.nodes,
        channels=loop.channels,
        managed=loop.managed,
        config=loop.config,
        step=loop.step,
        stop=loop.stop,
        for_execution=True,
        store=loop.store,
        checkpointer=loop.checkpointer,
        manager=loop.manager,
        cache_policy=loop.cache_policy,
        retry_policy=loop.retry_policy,
    )
    if task is None:
        raise Stale(where=f"execution {call.execution_id}")
    if task.cache_key and call.cache:
        task = replace(task, cache_key=CacheKey(call.cache.ns, call.cache.key, call.cache.ttl))
    execution = Execution(level, task.id, nodes=_nodes_as_messages(loop, level, task.name))
    task.config[lg.CONF][EXECUTION] = execution
    return _as_attempt(task, level, execution)


def _nodes_as_messages(loop: Any, level: Level, name: str) -> Any:
    """Of the graph that this node is. A graph that is called from inside of a node's function runs there: entering it
    again would repeat the code before the call."""
    bound = loop.nodes[name].bound
    if not level.segment.run.nested or not isinstance(bound, lg.Pregel) or bound.checkpointer is not None:
        return None
    # A value that is never saved would be lost between two messages.
    return None if any(isinstance(c, lg.UntrackedValue) for c in bound.channels.values()) else bound.nodes


def _as_attempt(task: Any, level: Level, execution: Execution) -> Any:
    call, segment = level.named, level.segment
    # Deliveries are counted for the node that the message is about; those around it are as they were.
    died = segment.attempt - 1 if level is segment.last and level.kind == "node" else 0
    if died or call.tries:
        # As LangGraph's own retry tells it: graphs inside go on, not over. Where it does so itself, it stays as it is.
        execution.continues = bool(died) and not call.tries and not task.config[lg.CONF].get(lg.CONFIG_KEY_RESUMING)
        task.config[lg.CONF][lg.CONFIG_KEY_RESUMING] = True
    sleep_below = segment.run.retry_by_message
    by_message = sleep_below is not None and bool(task.retry_policy)
    if not died and not call.tries and not by_message:
        return task
    since = (call.since or segment.started_at) if by_message else call.since
    attempt = _Attempt(task.proc, earlier=died + call.tries, since=since)
    if sleep_below is None or not by_message:
        return replace(task, proc=attempt)
    return replace(task, proc=attempt, retry_policy=(_Tries(task.retry_policy, call.tries, sleep_below),))


class _Tries:
    """The node's RetryPolicies as the one that stock `run_with_retry` sees: tries of earlier messages count too, and a
    delay of `sleep_below` seconds or more ends the message.

    Stock counts anew in each message, so that all it computes with is fixed here: it asks `retry_on` after each
    failure, and then sleeps `initial_interval`.
    """

    max_attempts, max_interval = sys.maxsize, math.inf
    backoff_factor, jitter = 1.0, False

    def __init__(self, policies: Sequence[RetryPolicy], tries: int, sleep_below: float) -> None:
        self.policies, self.tries, self.sleep_below = policies, tries, sleep_below
        self.initial_interval = 0.0

    def retry_on(self, error: Exception) -> bool:
        """Whether to try again here. Raises RetryLater where another message is to try it."""
        policy = next((p for p in self.policies if lg.should_retry_on(p, error)), None)
        if policy is None:
            return False
        self.tries += 1
        if self.tries >= policy.max_attempts:
            return False
        seconds = min(policy.max_interval, policy.initial_interval * policy.backoff_factor ** (self.tries - 1))
        seconds += random.uniform(0, 1) if policy.jitter else 0.0  # noqa: S311  # as stock
        if seconds >= self.sleep_below:
            raise RetryLater(seconds, self.tries) from error
        self.initial_interval = seconds
        return True


class _Attempt:
    """The node, told which attempt this is: earlier ones may have been on other workers."""

    def __init__(self, proc: Any, *, earlier: int, since: float | None) -> None:
        self.proc, self.earlier, self.since = proc, earlier, since

    def _told(self, config: Any) -> Any:
        runtime = config[lg.CONF][lg.CONFIG_KEY_RUNTIME]
        info: dict[str, Any] = {"node_attempt": self.earlier + runtime.execution_info.node_attempt}
        if self.since is not None:
            info["node_first_attempt_time"] = self.since
        return lg.patch_configurable(config, {lg.CONFIG_KEY_RUNTIME: runtime.patch_execution_info(**info)})

    def invoke(self, input: Any, config: Any) -> Any:
        return self.proc.invoke(input, self._told(config))

    async def ainvoke(self, input: Any, config: Any) -> Any:
        return await self.proc.ainvoke(input, self._told(config))

    async def astream(self, input: Any, config: Any) -> AsyncIterator[Any]:
        async for chunk in self.proc.astream(input, self._told(config)):
            yield chunk

"""pytest plugin: LangGraph's own tests, executed node by node by the engine.

Every root run of a graph with a checkpointer goes through `execute` or `aexecute`, which get what `Pregel.stream` or
`astream` got and yield what those would yield. What the tests look at besides (state, history, a saver's rows) stays
LangGraph's. `run.py` starts pytest with it; AGENTFARM_UPSTREAM_MODE is one of

    stock     nothing is replaced: the base line
    ordinary  values cross between two messages as bytes, live objects (callbacks, a RunControl) as they are
    strict    nothing but bytes crosses: no live objects, no context variables of the caller; and subgraphs run inside
              of their parent's node, as the server has it (docs/decisions/0004)
    retry     as ordinary; a RetryPolicy means a new message instead of a worker that sleeps
    force     as ordinary; a root run without a checkpointer gets one, as a server gives it one
    stock-force    stock with such a checkpointer: the base line of force
"""

import asyncio
import json
import os
import pickle
import queue
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import replace
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from report_plugin import DID

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.segment import inline_reason
from agentfarm.engine.steps import NodeCall, RunSpec, SegmentRequest, SegmentResult
from agentfarm.persistence.serde import FaithfulSerializer
from agentfarm.persistence.state_types import types_of
from agentfarm.testing.coordinator import Coordinator, Message, OpenRun
from agentfarm.testing.one_process import Worker

MODE = os.environ.get("AGENTFARM_UPSTREAM_MODE", "ordinary")


# --------------------------------------------------------------------------- bytes between messages


class Frozen:
    """A run as bytes, and what of it cannot be: every segment gets its own, thawed anew."""

    def __init__(self, graph: Any, input: Any, config: Any, kwargs: dict[str, Any]) -> None:
        kwargs, config = dict(kwargs), dict(config or {})
        conf = dict(config.pop(lg.CONF, {}))
        self.live: dict[str, Any] = {"control": kwargs.pop("control", None), "callbacks": config.pop("callbacks", None)}
        self.private = {key: conf.pop(key) for key in list(conf) if key.startswith("__")}
        self.saver = self.private.pop(lg.CONFIG_KEY_CHECKPOINTER, None) or graph.checkpointer
        # Bytes of our serializer, which knows the graph's own classes, importable or not; or of stock's.
        self.serdes = (FaithfulSerializer(types=types_of(graph)), JsonPlusSerializer(pickle_fallback=True))
        self.parts: dict[str, Any] = {}
        for name, value in {"input": input, "kwargs": kwargs, "config": config, "conf": conf}.items():
            self.parts[name] = self._freeze(value)
        self.inline = inline_reason(kwargs)
        self.run_id, self.thread_id = os.urandom(16).hex(), conf.get("thread_id")

    def thaw(self) -> RunSpec:
        parts = {name: thaw() for name, thaw in self.parts.items()}
        config = {**parts["config"], lg.CONF: {**parts["conf"], **self.private}}
        kwargs = parts["kwargs"]
        if MODE != "strict":
            kwargs["control"] = self.live["control"]
            if self.live["callbacks"] is not None:
                config["callbacks"] = self.live["callbacks"]
        return RunSpec(
            run_id=self.run_id,
            thread_id=str(self.thread_id),
            graph_id="upstream",
            input=parts["input"],
            config=config,
            kwargs=kwargs,
            inline=self.inline,
            retry_by_message=0.0 if MODE == "retry" else None,
            nested=MODE != "strict",
        )

    def _freeze(self, value: Any) -> Callable[[], Any]:
        """What makes the value anew from bytes. Pickle first, so that a test's own types stay what they are."""
        ways: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [(pickle.dumps, pickle.loads)]
        ways += [(serde.dumps_typed, serde.loads_typed) for serde in self.serdes]
        for dumps, loads in ways:
            try:
                frozen = dumps(value)
                loads(frozen)
            except Exception:  # a test's own values may fail in any way; the next one is tried
                continue
            return lambda loads=loads, frozen=frozen: loads(frozen)
        DID["not_serialisable"] += 1
        if MODE == "strict":
            raise TypeError("a value of this run cannot become bytes")
        return lambda: value


class Wire:
    """What a worker sees of the coordinator: runs thawed from bytes. Only the coordinator keeps the run itself."""

    def __init__(self, coordinator: Coordinator, frozen: Frozen) -> None:
        self.coordinator, self.frozen = coordinator, frozen

    def begin(self, message: Message) -> SegmentRequest | None:
        return self._across(self.coordinator.begin(message))

    def commit(self, request: SegmentRequest, result: SegmentResult, saver: Any, **kwargs: Any) -> Any:
        return self._across(self.coordinator.commit(request, result, saver, **kwargs))

    async def acommit(self, request: SegmentRequest, result: SegmentResult, saver: Any, **kwargs: Any) -> Any:
        return self._across(await self.coordinator.acommit(request, result, saver, **kwargs))

    def _across(self, request: SegmentRequest | None) -> SegmentRequest | None:
        if request is None:
            return None
        DID[f"segment_{request.kind}"] += 1
        DID["segment_nested"] += bool(request.call and request.call.outer)
        return replace(request, run=self.frozen.thaw())


def _as_json(call: NodeCall) -> NodeCall:
    """A call as the next worker gets it."""
    if call.resume_map is not None:
        return call
    text = json.dumps(call.to_dict())
    DID["message"] += 1
    DID["message_bytes"] += len(text)
    return NodeCall.from_dict(json.loads(text))


class Driver:
    """One run, and the messages of it that wait for a worker."""

    def __init__(
        self, graph: Any, input: Any, config: Any, kwargs: dict[str, Any], sink: Callable[[Any], None]
    ) -> None:
        frozen = Frozen(graph, input, config, kwargs)
        self.inbox: deque[Message] = deque()
        coordinator = Coordinator(self._publish)
        self.run: OpenRun = coordinator.create(frozen.thaw())
        # `Wire` is a Coordinator as far as a worker can tell.
        self.worker = Worker(Wire(coordinator, frozen), graph, frozen.saver, sink=sink)  # type: ignore[arg-type]
        DID["run"] += 1
        DID["run_inline"] += frozen.inline is not None

    def _publish(self, message: Message) -> None:
        self.inbox.append(replace(message, call=_as_json(message.call)) if message.call else message)


# --------------------------------------------------------------------------- in place of stream and astream


def execute(graph: Any, input: Any, config: Any, kwargs: dict[str, Any]) -> Iterator[Any]:
    """The chunks that `graph.stream(input, config, **kwargs)` would give, from workers that are threads."""
    out: queue.Queue[tuple[str, Any]] = queue.Queue()
    driver = Driver(graph, input, config, kwargs, sink=lambda chunk: out.put(("chunk", chunk)))
    busy = 0

    def work(message: Message) -> None:
        try:
            if message.delay_seconds:  # tests count the calls of sleep
                time.sleep(message.delay_seconds)
            driver.worker.work(message)
        except BaseException as error:  # whatever it was, it is raised where the test is
            out.put(("crash", error))
        out.put(("done", None))

    with ThreadPoolExecutor(64) as pool:
        while driver.inbox or busy:
            while driver.inbox:
                context = Context() if MODE == "strict" else copy_context()
                pool.submit(context.run, work, driver.inbox.popleft())
                busy += 1
            kind, value = out.get()
            if kind == "chunk":
                yield value
            elif kind == "done":
                busy -= 1
            else:
                raise value
    if driver.run.error is not None:
        raise driver.run.error


async def aexecute(graph: Any, input: Any, config: Any, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
    """The chunks that `graph.astream(input, config, **kwargs)` would give, from workers that are asyncio tasks."""
    out: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    driver = Driver(graph, input, config, kwargs, sink=lambda chunk: out.put_nowait(("chunk", chunk)))
    busy: set[asyncio.Task[None]] = set()

    async def work(message: Message) -> None:
        try:
            if message.delay_seconds:
                await asyncio.sleep(message.delay_seconds)
            await driver.worker.awork(message)
        except BaseException as error:
            out.put_nowait(("crash", error))
        finally:
            out.put_nowait(("done", asyncio.current_task()))

    try:
        while driver.inbox or busy:
            while driver.inbox:
                context = Context() if MODE == "strict" else copy_context()
                busy.add(asyncio.get_running_loop().create_task(work(driver.inbox.popleft()), context=context))
            kind, value = await out.get()
            if kind == "chunk":
                yield value
            elif kind == "done":
                busy.discard(value)
                if driver.run.status == "error":  # LangGraph cancels the siblings of a node that failed
                    for task in busy:
                        task.cancel()
            elif not isinstance(value, asyncio.CancelledError):
                raise value
    finally:
        for task in busy:
            task.cancel()
        if busy:
            await asyncio.wait(busy)
    if driver.run.error is not None:
        raise driver.run.error


def _is_ours(graph: Any, config: Any) -> tuple[bool, Any]:
    """(whether this is a root run that a server would execute, its config)."""
    conf = lg.ensure_config(graph.config, config)[lg.CONF]
    if lg.CONFIG_KEY_TASK_ID in conf:
        return False, config
    saver = conf.get(lg.CONFIG_KEY_CHECKPOINTER, graph.checkpointer)
    if isinstance(saver, BaseCheckpointSaver) and "thread_id" in conf:
        return MODE != "stock-force", config
    if MODE in ("force", "stock-force") and not saver and graph.checkpointer is not False:
        given = InMemorySaver(serde=FaithfulSerializer(types=types_of(graph)))
        forced = {
            "thread_id": os.urandom(8).hex(),
            **(config or {}).get(lg.CONF, {}),
            lg.CONFIG_KEY_CHECKPOINTER: given,
        }
        return MODE == "force", {**(config or {}), lg.CONF: forced}
    return False, config


def _stream(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
    ours, config = _is_ours(self, config)
    return execute(self, input, config, kwargs) if ours else lg.STREAM(self, input, config, **kwargs)


def _astream(self: Any, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
    ours, config = _is_ours(self, config)
    return aexecute(self, input, config, kwargs) if ours else lg.ASTREAM(self, input, config, **kwargs)


if MODE != "stock":
    lg.Pregel.stream = _stream  # type: ignore[method-assign,assignment]
    lg.Pregel.astream = _astream  # type: ignore[method-assign,assignment]

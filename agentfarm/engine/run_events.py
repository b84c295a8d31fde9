"""What `astream_events(version="v2")` tells of a run, though each segment of the run is a stream of its own.

LangChain's handler makes the events; here they go to the sink the moment they are made, instead of to a queue that
somebody reads, and the run that an earlier segment began is known to the handler without being told once more. Events
reach the sink as chunks of the mode "events", among the other chunks, which the run's own `on_chain_stream` repeats.

As in stock, nothing is told of a chain that fails: the run's error is.
"""

from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

from agentfarm.engine import _langgraph as lg

MODE = "events"

_TOLD = (
    "on_chain_start",
    "on_chain_end",
    "on_chat_model_start",
    "on_custom_event",
    "on_llm_end",
    "on_llm_new_token",
    "on_llm_start",
    "on_retriever_end",
    "on_retriever_start",
    "on_tool_end",
    "on_tool_error",
    "on_tool_start",
)


class RunEvents(lg.AstreamEventsHandler):
    """The handler of one segment.

    put    takes each event (StreamEvent, version v2), in order and from whatever thread
    input  the run's, as it was given: what its start is told with
    """

    #: In the caller's thread, by async callback managers as well: else events would change places.
    run_inline = True

    def __init__(self, put: Callable[[Any], None], input: Any) -> None:
        # Not stock's, which makes an event loop for its queue where the thread has none.
        self.run_map, self.parent_map, self.is_tapped = {}, {}, {}
        self._put, self._input = put, input
        self._root: UUID | None = None

    def begin(self, root: UUID) -> None:
        """The run is about to be told of."""
        self._root = root

    def go_on(self, root: UUID, *, name: str, tags: list[str], metadata: dict[str, Any]) -> None:
        """The run was told of by an earlier segment."""
        self.begin(root)
        self._write_run_start_info(root, name_=name, tags=tags, metadata=metadata, run_type="chain", parent_run_id=None)

    def tell_chunk(self, chunk: Any) -> None:
        """A chunk of the run's stream."""
        if self._root is not None and (run := self.run_map.get(self._root)) is not None:
            self._send(
                {
                    "event": "on_chain_stream",
                    "run_id": str(self._root),
                    "name": run["name"],
                    "tags": run["tags"],
                    "metadata": run["metadata"],
                    "data": {"chunk": chunk},
                    "parent_ids": [],
                },
                "chain",
            )

    def _send(self, event: Any, event_type: str) -> None:
        if event["run_id"] == str(self._root):
            if event["event"].endswith("_start"):
                event["data"]["input"] = self._input
            elif event["event"].endswith("_end"):
                event["data"].pop("input", None)  # stock: it was told at the start
        self._put(event)


def _without_waiting(name: str) -> Callable[..., None]:
    """Stock's method, which is a coroutine and never waits, as a plain function: for sync code, and in order."""
    method: Callable[..., Coroutine[Any, Any, None]] = getattr(lg.AstreamEventsHandler, name)

    def told(self: RunEvents, *args: Any, **kwargs: Any) -> None:
        coroutine = method(self, *args, **kwargs)
        try:
            coroutine.send(None)
        except StopIteration:
            return
        coroutine.close()
        raise RuntimeError(f"{name} of langchain-core's handler of events waits for something")

    told.__name__ = name
    return told


for _name in _TOLD:
    setattr(RunEvents, _name, _without_waiting(_name))

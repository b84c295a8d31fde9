"""The same graph run by stock LangGraph in the test's process: what the farm must answer."""

import asyncio
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from agentfarm.engine import _langgraph as lg
from agentfarm.engine.graph_loading import describe_graph


def stock_values(graph: Any, input: Any, **config: Any) -> Any:
    """The values at the end. Raises what the run ended with."""
    own = graph.copy(update={"checkpointer": InMemorySaver()})
    full = {"configurable": {"thread_id": "1"}, **config}

    async def last() -> Any:
        return [values async for values in lg.ASTREAM(own, input, full, stream_mode="values")][-1]

    if describe_graph("graph", graph).is_async:
        return asyncio.run(last())
    return list(lg.STREAM(own, input, full, stream_mode="values"))[-1]

"""The end of a node whose execution another worker has taken over, told in LangGraph's words."""

from langgraph.errors import GraphBubbleUp

from agentfarm.errors import LeaseLost


class FencedOut(LeaseLost, GraphBubbleUp):
    """Raised by a saver in the middle of a node, where something of it is saved at once.

    To LangGraph an exception of its own that is to go up: not the node's failure, which its RetryPolicy would try
    again, its error handler answer, and every stream tell to clients as the end of a node that runs elsewhere.
    """

"""The private names of langgraph_sdk's server runtime: what the Agent Server hands to a graph's factory.

Imported when the first factory asks for one, and not before: the SDK brings its HTTP client along. Written against
langgraph-sdk 0.4.14.
"""

from langgraph_sdk.runtime import _ExecutionRuntime as ExecutionRuntime
from langgraph_sdk.runtime import _ReadRuntime as ReadRuntime

__all__ = ["ExecutionRuntime", "ReadRuntime"]

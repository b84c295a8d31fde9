"""The examples as stock LangGraph runs them, in this process: what they answer without a farm."""

import os

# Read when the examples and langgraph are imported, so set before pytest imports the test modules.
os.environ["LOCAL_MODEL_TOKEN_SECONDS"] = "0"
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
os.environ.pop("MODEL", None)

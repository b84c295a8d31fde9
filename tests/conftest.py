"""What every test stands on: strict serialisation before langgraph is imported, and servers of our own."""

import os

os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")

pytest_plugins = ["tests.services"]

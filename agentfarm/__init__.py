"""AgentFarm: LangGraph agents for many tenants, one node execution a message."""

__version__ = "0.1.0"

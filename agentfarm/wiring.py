"""Joins the flow to the real stores: the one place that knows both. Everything here is made once a process, when first asked for.

Doors (api, workers, admin, commands) import this and the flow, and nothing of what lies behind the ports.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import cache
from typing import TYPE_CHECKING, Any

from agentfarm.conf import settings, strict_msgpack

strict_msgpack()  # before langgraph is imported below

from agentfarm.engine.graphs import GraphRegistry  # noqa: E402
from agentfarm.flow.farm import Farm  # noqa: E402
from agentfarm.persistence.database import Database, check_at_start  # noqa: E402
from agentfarm.persistence.executions import PostgresExecutions  # noqa: E402
from agentfarm.persistence.healing import PostgresHealing  # noqa: E402
from agentfarm.persistence.leases import WorkerLease  # noqa: E402
from agentfarm.persistence.runs import PostgresRuns  # noqa: E402
from agentfarm.persistence.serde import serde_of  # noqa: E402
from agentfarm.persistence.threads import PostgresThreads  # noqa: E402
from agentfarm.queueing.broker import make_app, queue_names  # noqa: E402
from agentfarm.queueing.publisher import CeleryPublisher  # noqa: E402
from agentfarm.streaming.log import RedisEventLog  # noqa: E402

if TYPE_CHECKING:
    from celery import Celery

#: The home that every tenant lives in until one asks for its own.
MAIN = "main"


@cache
def graphs() -> GraphRegistry:
    return GraphRegistry.from_config(settings().graphs_config)


@cache
def celery_app() -> "Celery":
    return make_app(settings(), queues=queue_names(settings(), graphs().queues()))

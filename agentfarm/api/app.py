"""The API: its routers, how it reads bodies and writes errors, and its documents at /docs and /openapi.json."""

from typing import Any

from django.http import HttpRequest
from ninja import NinjaAPI
from ninja.parser import Parser

import agentfarm
from agentfarm.api import absent, assistants, problems, runs, store, system, threads
from agentfarm.api.auth import TenantKey, in_tenant_scope
from agentfarm.api.bodies import parse_json
from agentfarm.conf import settings


class OneParser(Parser):
    """Every body is JSON, whatever its content type says: Studio sends it as text/plain, to be spared a preflight."""

    def parse_body(self, request: HttpRequest) -> Any:
        return parse_json(request.body, max_depth=settings().max_json_depth)


api = NinjaAPI(
    title="AgentFarm",
    version=agentfarm.__version__,
    description="LangGraph agents for many tenants, over the Agent Server API. Send your key as `x-api-key`.",
    auth=TenantKey(),
    parser=OneParser(),
    urls_namespace="api",
    openapi_url="/openapi.json",
    docs_url="/docs",
)
problems.install(api)
api.add_decorator(in_tenant_scope)
# absent first: the crons of /threads/{thread_id}/runs/crons are no run's id
for router in (system.router, absent.router, assistants.router, threads.router, runs.router, store.router):
    api.add_router("", router)

"""The admin's site: names, and links to what is not in it.

Outside of admin/, whose import registers pages with it.
"""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest

from agentfarm.conf import settings


class FarmAdminSite(AdminSite):
    site_header = "AgentFarm"
    site_title = "AgentFarm"
    index_title = "The farm"
    site_url = "/docs"

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().each_context(request), "flower_url": settings().flower_url, "docs_url": "/docs"}

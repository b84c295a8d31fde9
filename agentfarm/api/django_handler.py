"""Django under ASGI with one hop: event loop → thread → event loop.

Django's own handler runs each middleware's hook in the thread by itself, two hops a middleware. All of ours are
synchronous, and so are the views, so the whole chain is one call in one thread.
"""

import asyncio
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase

#: Requests in Django at once. Each has a thread of its own and most wait for Postgres, of which a process has
#: AGENTFARM_DATABASE_POOL_SIZE connections: more at once would wait in threads instead of here. Streams do not count.
MAX_AT_ONCE: Final = 64


class OneThreadHandler(ASGIHandler):
    def __init__(self) -> None:
        super().__init__()
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._places:
            await super().__call__(scope, receive, send)

    def load_middleware(self, is_async: bool = False) -> None:  # Django's signature
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        return await sync_to_async(self.get_response, thread_sensitive=True)(request)

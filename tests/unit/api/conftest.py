"""The API in this process over fakes: what a client sees of it, without a server."""

import os
from collections.abc import AsyncIterator, Iterator

import django
import httpx
import pytest
import pytest_asyncio

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

import agentfarm.urls  # noqa: E402, F401
from agentfarm.api.django_handler import OneThreadHandler  # noqa: E402
from agentfarm.api.edge import Edge  # noqa: E402
from agentfarm.api.process import use_farm  # noqa: E402
from agentfarm.streaming.handoff import StreamHandoff  # noqa: E402
from tests.unit.api.fakes import ACME, FakeFarm  # noqa: E402


@pytest.fixture
def fakes() -> Iterator[FakeFarm]:
    fakes = FakeFarm()
    use_farm(fakes.farm)
    yield fakes
    use_farm(None)


@pytest_asyncio.fixture
async def client(fakes: FakeFarm) -> AsyncIterator[httpx.AsyncClient]:
    """Of the tenant ACME."""
    app = Edge(StreamHandoff(OneThreadHandler()), max_body_bytes=100_000, cors_allow_origins=("*",))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]  # httpx has types of its own
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers={"x-api-key": fakes.key_of(ACME)}
    ) as client:
        yield client

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentfarm.streaming.log import RedisEventLog
from tests.integration.streaming.valkey import Valkey


@pytest.fixture(scope="session")
def shared_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.kill()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path).start()
    yield server
    server.thaw()
    server.kill()


@pytest_asyncio.fixture
async def make_log() -> AsyncIterator[Any]:
    """make_log(server, **settings) → an EventLog as one process has it."""
    made: list[RedisEventLog] = []

    def make(server: Valkey, **settings: Any) -> RedisEventLog:
        made.append(RedisEventLog(server.url, **{"heartbeat_seconds": 0.2, "connect_seconds": 2.0, **settings}))
        return made[-1]

    yield make
    for log in made:
        await log.aclose()
        log.close()

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentfarm.conf import forget_settings

CONFIG = Path(__file__).parents[3] / "workers" / "flowerconfig.py"
NOWHERE = {
    "DATABASE_URL": "postgresql://farm_app:none@127.0.0.1:1/none",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/1",
    "AGENTFARM_SECRET_KEY": "for-tests-only",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in [name for name in os.environ if name.startswith("FLOWER_")]:
        monkeypatch.delenv(name)
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)
    forget_settings()
    yield monkeypatch
    forget_settings()


@pytest.mark.parametrize("given", [{}, {"FLOWER_USER": "admin"}, {"FLOWER_PASSWORD": "secret"}])
def test_flower_does_not_start_without_user_and_password(
    environment: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    for name, value in given.items():
        environment.setenv(name, value)

    with pytest.raises(SystemExit, match="FLOWER_USER and FLOWER_PASSWORD"):
        runpy.run_path(str(CONFIG))


def test_flower_does_not_start_with_an_open_api(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FLOWER_USER", "admin")
    environment.setenv("FLOWER_PASSWORD", "secret")
    environment.setenv("FLOWER_UNAUTHENTICATED_API", "true")

    with pytest.raises(SystemExit, match="FLOWER_UNAUTHENTICATED_API"):
        runpy.run_path(str(CONFIG))


def test_flower_shows_and_does_nothing_else(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FLOWER_USER", "admin")
    environment.setenv("FLOWER_PASSWORD", "secret")

    options = runpy.run_path(str(CONFIG))

    assert options["basic_auth"] == ["admin:secret"]
    assert options["read_only"] is True
    assert options["address"] == "127.0.0.1"

"""What the local farm remembers, and for whom."""

import stat
from pathlib import Path

import pytest

from agentfarm.errors import Misconfigured
from agentfarm.local.services import Services
from agentfarm.local.state import State, locked, write_private


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    with locked(tmp_path / "farm") as state:
        made = state.secret("web")

    assert State(tmp_path / "farm").secret("web") == made
    assert len(made) >= 32


def test_only_the_owner_reads_passwords(tmp_path: Path) -> None:
    write_private(tmp_path / "passwords", "first")
    write_private(tmp_path / "passwords", "second")

    assert (tmp_path / "passwords").read_text() == "second"
    assert stat.S_IMODE((tmp_path / "passwords").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["passwords"]


def test_a_folder_that_holds_something_else_is_neither_used_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")

    with pytest.raises(Misconfigured, match="not a farm's"), locked(tmp_path):
        pass
    with pytest.raises(Misconfigured, match="nothing was deleted"):
        Services(tmp_path).reset()
    assert (tmp_path / "precious").exists()


def test_a_state_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")

    with pytest.raises(Misconfigured, match="reset"):
        State(tmp_path)


def test_servers_of_ones_own_are_used_and_not_started(tmp_path: Path) -> None:
    own = {
        "DATABASE_URL": "postgresql://app@db/one",
        "DATABASE_OWNER_URL": "postgresql://owner@db/one",
        "REDIS_URL": "redis://cache/0",
        "CELERY_BROKER_URL": "amqp://broker",
    }
    services = Services(tmp_path / "farm", given=own)

    assert services.start() == []
    assert services.environment() == own

"""The web process starts only where it may serve, says why it does not, and forgets a revoked key."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping

import httpx
import pytest

from tests.farm import ROOT, FarmProcesses, free_port, wait_for
from tests.services import OwnDatabase


def manage(environment: Mapping[str, str], *command: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT, env={**os.environ, **environment, **changes}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_taken_is_named(farm: FarmProcesses, taken_port: int) -> None:
    done = manage(farm.environment, "serve", "--port", str(taken_port))

    assert done.returncode == 1
    assert f"127.0.0.1:{taken_port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_requests_without_a_key_are_never_let_in_from_elsewhere(farm: FarmProcesses, host: str) -> None:
    done = manage(farm.environment, "serve", "--host", host, "--port", str(free_port()), ANONYMOUS_TENANT="demo")

    assert done.returncode == 1
    assert "ANONYMOUS_TENANT" in done.stderr


@pytest.mark.parametrize("role", ["owner_url", "root_url"])
def test_a_role_that_could_read_every_tenant_does_not_serve(
    farm: FarmProcesses, database: OwnDatabase, role: str
) -> None:
    done = manage(farm.environment, "serve", "--port", str(free_port()), DATABASE_URL=getattr(database, role))

    assert done.returncode == 1
    assert "row-level security" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_that_is_wrong_is_named_without_its_value(farm: FarmProcesses) -> None:
    done = manage(farm.environment, "serve", REDIS_URL="the-secret//x")

    assert done.returncode != 0
    assert "REDIS_URL" in done.stderr


def test_a_revoked_key_is_dead_within_a_second_or_so(farm: FarmProcesses) -> None:
    made = manage(farm.environment, "farm_key", "issue", "demo", "--name", "short-lived")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    ask = {"url": f"{farm.url}/threads/search", "json": {}, "headers": {"x-api-key": key}}
    assert httpx.post(**ask).status_code == 200

    revoked = manage(farm.environment, "farm_key", "revoke", key)
    assert revoked.returncode == 0, revoked.stderr

    wait_for(lambda: httpx.post(**ask).status_code == 401, what="the key refused", seconds=2)


@pytest.fixture
def anonymous_web(farm: FarmProcesses) -> Iterator[FarmProcesses]:
    folder = farm.folder / "anonymous"
    folder.mkdir()
    other = FarmProcesses({**farm.environment, "ANONYMOUS_TENANT": "demo"}, folder, farm.admin_dsn, farm.keys)
    other.start_web()
    yield other
    other.stop()


def test_an_anonymous_tenant_needs_no_key_on_loopback(farm: FarmProcesses, anonymous_web: FarmProcesses) -> None:
    made = httpx.post(f"{anonymous_web.url}/threads", json={})

    assert made.status_code == 200
    seen = httpx.get(f"{farm.url}/threads/{made.json()['thread_id']}", headers={"x-api-key": farm.keys["demo"]})
    assert seen.status_code == 200
    assert httpx.post(f"{anonymous_web.url}/threads", json={}, headers={"x-api-key": "wrong"}).status_code == 401


def test_a_web_process_without_redis_says_so_and_serves_what_it_can(farm: FarmProcesses) -> None:
    dead = f"redis://127.0.0.1:{free_port()}/0"
    folder = farm.folder / "no-redis"
    folder.mkdir()
    other = FarmProcesses({**farm.environment, "REDIS_URL": dead}, folder, farm.admin_dsn, farm.keys)
    other.start_web()
    try:
        client = httpx.Client(base_url=other.url, headers={"x-api-key": farm.keys["demo"]}, timeout=60)
        with client:
            thread = client.post("/threads", json={}).json()["thread_id"]
            run = client.post(f"/threads/{thread}/runs", json={"assistant_id": "line", "input": {}}).json()["run_id"]
            with pytest.raises(httpx.RemoteProtocolError):
                client.get(f"/threads/{thread}/runs/{run}/join")
            wait_for(
                lambda: client.get(f"/threads/{thread}/runs/{run}").json()["status"] == "success",
                what="the run's success",
            )
    finally:
        other.stop()

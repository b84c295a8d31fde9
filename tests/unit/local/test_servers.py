"""The local servers for real: they outlive who started them, come back as they were, and lose nothing."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from agentfarm.errors import Misconfigured
from agentfarm.local.postgres import Postgres
from agentfarm.local.processes import wait_until
from agentfarm.local.rabbitmq import RabbitMQ
from agentfarm.local.services import Services
from agentfarm.local.state import State, locked
from agentfarm.local.valkey import Valkey
from tests.services import missing

START = """
import sys
from pathlib import Path
from agentfarm.local.services import Services
services = Services(Path(sys.argv[1]), given={})
services.start()
print(services.environment(), flush=True)
"""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    own = Services(tmp_path / "farm", given={})
    yield own
    own.reset()
    assert not own.folder.exists()


def execute(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)  # type: ignore[arg-type]  # literal SQL of the tests
        return cursor.fetchall() if cursor.description else []


def test_a_second_start_goes_on_with_the_same_data(services: Services) -> None:
    services.start()
    first = services.environment()
    execute(first["DATABASE_OWNER_URL"], "CREATE TABLE kept (x int); INSERT INTO kept VALUES (1)")
    with redis.Redis.from_url(first["REDIS_URL"]) as client:
        client.set("kept", "1")

    services.start()
    assert services.environment() == first
    assert sorted(services.stop()) == ["PostgreSQL", "Valkey"]
    assert services.status() == {"PostgreSQL": False, "Valkey": False}
    assert services.stop() == []
    services.start()

    assert services.environment() == first
    assert execute(first["DATABASE_OWNER_URL"], "SELECT x FROM kept") == [(1,)]
    with redis.Redis.from_url(first["REDIS_URL"]) as client:
        assert client.get("kept") == b"1"


def test_what_env_prints_names_no_server_of_somebody_elses(services: Services) -> None:
    services.start()
    in_that_shell = Services(services.folder, given=services.environment())
    strangers = Services(services.folder, given={"DATABASE_URL": "postgresql://app:secret@elsewhere/farm"})

    assert in_that_shell.status() == {"PostgreSQL": True, "Valkey": True}
    assert strangers.status() == {"Valkey": True}


def test_no_role_of_the_product_may_pass_the_walls(services: Services) -> None:
    services.start()
    environment = services.environment()

    for name in ("DATABASE_URL", "DATABASE_OWNER_URL", "DATABASE_OPS_URL", "DATABASE_ADMIN_URL"):
        rights = "SELECT rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        assert execute(environment[name], rights) == [(False, False, False)], name
    owned = "SELECT count(*) FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE r.rolname = current_user"
    assert execute(environment["DATABASE_URL"], owned) == [(0,)]


def test_a_wrong_password_opens_nothing(services: Services) -> None:
    services.start()
    environment = services.environment()

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(environment["DATABASE_URL"].replace("farm_app:", "farm_app:x"))
    wrong = environment["REDIS_URL"].replace("redis://:", "redis://:x")
    with redis.Redis.from_url(wrong) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    assert stat.S_IMODE((services.folder / "state.json").stat().st_mode) == 0o600


def test_kill_9_of_postgres_loses_no_committed_row(services: Services) -> None:
    services.start()
    url = services.environment()["DATABASE_OWNER_URL"]
    execute(url, "CREATE TABLE numbers (x int PRIMARY KEY)")
    committed: list[int] = []

    def write() -> None:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                for number in range(10_000_000):
                    connection.execute("INSERT INTO numbers VALUES (%s)", (number,))
                    committed.append(number)
        except psycopg.Error:
            return  # the server is gone

    writer = threading.Thread(target=write)
    writer.start()
    assert wait_until(lambda: len(committed) > 200, seconds=30)
    pid = Postgres(State(services.folder)).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    writer.join(30)
    services.start()

    found = {row[0] for row in execute(url, "SELECT x FROM numbers")}
    assert set(committed) <= found


def test_a_pid_file_that_names_another_program_does_not_stop_the_start(services: Services) -> None:
    services.start()
    services.stop()
    pid_file = services.folder / "pg" / "postmaster.pid"
    owner = (services.folder / "pg").stat()
    pid_file.write_text(f"{os.getpid()}\n{services.folder}/pg\n1\n5432\n\n\n\nready\n")
    os.chown(pid_file, owner.st_uid, owner.st_gid)

    services.start()

    assert services.status()["PostgreSQL"]


def test_a_port_that_was_taken_meanwhile_is_left_to_who_has_it(services: Services) -> None:
    services.start()
    services.stop()
    port = Postgres(State(services.folder)).port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        services.start()

    assert Postgres(State(services.folder)).port != port
    assert execute(services.environment()["DATABASE_URL"], "SELECT 1") == [(1,)]


def test_servers_outlive_whoever_started_them(services: Services) -> None:
    script = '"$0" -c "$1" "$2"; read line'
    parent = subprocess.Popen(
        ["/bin/sh", "-c", script, sys.executable, START, str(services.folder)],
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    with parent.stdin, parent.stdout:
        assert parent.stdout.readline().startswith(b"{")
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()

    assert services.status() == {"PostgreSQL": True, "Valkey": True}


def test_starts_at_once_give_one_server(services: Services) -> None:
    command = [sys.executable, "-c", START, str(services.folder)]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {start.communicate()[0] for start in starts}

    assert [start.returncode for start in starts] == [0, 0, 0, 0]
    assert len(answers) == 1


def test_a_long_path_with_spaces_and_umlauts_will_do(tmp_path: Path) -> None:
    deep = Services(tmp_path / ("a b" * 12) / ("ü" * 30) / "farm", given={})
    try:
        deep.start()
        assert execute(deep.environment()["DATABASE_URL"], "SELECT 1") == [(1,)]
    finally:
        deep.reset()


def test_an_initdb_that_was_interrupted_is_begun_again(services: Services) -> None:
    with locked(services.folder):
        (services.folder / "pg" / "base").mkdir(parents=True)

    services.start()

    assert services.status()["PostgreSQL"]


@pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL runs as ourselves where we are not root")
def test_a_folder_that_only_root_reaches_is_served_from_a_namespace(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    services = Services(tmp_path / "private" / "farm", given={})
    try:
        services.start()
        assert State(services.folder).section("postgres")["identity"] == "namespace"
        assert {path.owner() for path in (services.folder / "pg").rglob("*")} == {"root"}
    finally:
        services.reset()


def test_a_server_that_does_not_start_says_what_it_said(services: Services) -> None:
    services.postgres_options = {"shared_buffers": "no number"}

    with pytest.raises(Misconfigured, match="shared_buffers"):
        services.start()


def test_valkey_writes_what_it_holds_before_it_stops(services: Services) -> None:
    services.start()
    url = services.environment()["REDIS_URL"]
    with redis.Redis.from_url(url) as client:
        client.mset({f"key{number}": number for number in range(1000)})

    services.stop()
    services.start()

    with redis.Redis.from_url(url) as client:
        assert client.dbsize() == 1000
    assert Valkey(State(services.folder)).pid is not None


@pytest.mark.rabbitmq
def test_a_rabbitmq_node_of_ones_own_comes_and_goes(services: Services) -> None:
    if not RabbitMQ.is_installed():
        missing("rabbitmq", "rabbitmq-server is not installed here")
    services.broker = "rabbitmq"
    services.start()
    node = RabbitMQ(State(services.folder))

    assert services.status()["RabbitMQ"]
    assert services.environment()["CELERY_BROKER_URL"] == node.url()
    assert node.make_virtual_host("second") == node.url("second")
    pid = node.pid
    assert "RabbitMQ" in services.stop()
    assert pid is not None
    assert not services.status()["RabbitMQ"]

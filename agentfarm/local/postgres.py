"""A PostgreSQL of our own below the folder, from a wheel: a daemon on 127.0.0.1 that outlives who starts it.

Roles as in production (agentfarm/persistence/sql/walls.sql grants them what they may):

    farm_root    superuser of this cluster; made by initdb, used here and by tests alone
    farm_owner   owns database and schema: migrations
    farm_app     web and workers: no superuser, no BYPASSRLS, owns nothing
    farm_ops     the healer
    farm_admin   Django's admin

Passwords are checked on every connection (SCRAM). No row of a crashed server is lost: data checksums, fsync on.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agentfarm.errors import Misconfigured
from agentfarm.local.binaries import find_postgres
from agentfarm.local.identity import Identity, choose_identity
from agentfarm.local.processes import (
    free_port,
    has_argument,
    port_is_free,
    read_pid,
    run,
    tail,
    wait_gone,
)
from agentfarm.local.state import State, write_private

DATABASE = "agentfarm"
ROOT, OWNER, APP, OPS, ADMIN = "farm_root", "farm_owner", "farm_app", "farm_ops", "farm_admin"
ROLES = (OWNER, APP, OPS, ADMIN)

START_SECONDS = 60.0
STOP_SECONDS = 30.0

#: sun_path holds 108 bytes; a longer path gets no socket, TCP stays.
LONGEST_SOCKET = 100

#: A container's /dev/shm is often 64 MB, too small for parallel queries.
LITTLE_SHARED_MEMORY = 256 << 20


class Postgres:
    """options: settings of the server for this start, e.g. {"fsync": "off"} where data may be lost with the machine."""

    name = "PostgreSQL"

    def __init__(self, state: State, *, options: Mapping[str, str] | None = None) -> None:
        self.state, self.options = state, dict(options or {})
        self.facts: dict[str, Any] = state.section("postgres")
        self.data, self.sockets, self.log = state.folder / "pg", state.folder / "run", state.folder / "pg.log"

    # -- what others ask

    @property
    def port(self) -> int:
        return int(self.facts["port"])

    @property
    def pid(self) -> int | None:
        """Of the running server, if it is ours."""
        pid = read_pid(self.data / "postmaster.pid")
        return pid if has_argument(pid, str(self.data)) else None

    def url(self, role: str, database: str = DATABASE) -> str:
        return f"postgresql://{role}:{self.facts['passwords'][role]}@127.0.0.1:{self.port}/{quote(database)}"

    def describe(self) -> str:
        return f"{self.facts['version']} ({self.facts['source']}, runs as {self.facts['identity']})"

    def is_ready(self) -> bool:
        """Ours, and answering: nobody else's server knows the password."""
        return bool(self.facts.get("roles_made")) and self._answers()

    def query(self, sql: str, *, role: str = ROOT, database: str = "postgres") -> str:
        """psql's output, one line a row. Raises Misconfigured with what psql said."""
        done = self._psql(sql, role, database)
        if done.returncode:
            raise Misconfigured(f"PostgreSQL refused: {done.stderr.strip()}")
        return done.stdout.strip()

    # -- start

    def start(self) -> None:
        """Idempotent. Raises Misconfigured, which ends with the last lines of the server's log."""
        if self.is_ready():
            return
        folder, source = find_postgres()
        identity = choose_identity(self.state.folder, folder / "postgres")
        self._note_version(folder, source, identity)
        self.facts.setdefault("passwords", {})
        for role in (ROOT, *ROLES):
            self.facts["passwords"].setdefault(role, secrets.token_urlsafe(18))
        if self.pid is None:
            self._choose_port()
            if not self._has_data():
                self._make_cluster(folder, identity)
            self._start(folder, identity)
        elif not self._answers():
            raise Misconfigured(f"A PostgreSQL (pid {self.pid}) holds {self.data} but does not answer; see {self.log}.")
        self._make_roles()
        self.facts["roles_made"] = True
        self.state.save()

    def stop(self) -> bool:
        """Whether there was one to stop. Fast, then immediate; never kill -9."""
        pid = self.pid
        if pid is None:
            return False
        for number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5.0)):
            os.kill(pid, number)
            if wait_gone(pid, seconds=seconds):
                return True
        raise Misconfigured(f"PostgreSQL (pid {pid}) does not stop; see {self.log}.")

    # -- one step each

    def _has_data(self) -> bool:
        return (self.data / "PG_VERSION").exists()

    def _note_version(self, folder: Path, source: str, identity: Identity) -> None:
        said = run([str(folder / "postgres"), "--version"], **identity.popen_arguments()).stdout
        version = re.search(r"\d+(\.\d+)?", said)
        if version is None:
            raise Misconfigured(f"{folder / 'postgres'} does not run on this machine: it said {said.strip()!r}.")
        major = version[0].split(".")[0]
        if self._has_data() and (old := (self.data / "PG_VERSION").read_text().strip()) != major:
            raise Misconfigured(
                f"{self.data} was made by PostgreSQL {old}, the programs are {version[0]}. Set FARM_PG_BIN to those of "
                f"{old}, or dump with them and `python -m agentfarm.local reset --folder {self.state.folder}`."
            )
        self.facts.update(folder=str(folder), source=source, version=version[0], identity=str(identity))

    def _choose_port(self) -> None:
        if "port" not in self.facts or not port_is_free(self.port):
            self.facts["port"] = free_port()
        self.state.save()

    def _make_cluster(self, folder: Path, identity: Identity) -> None:
        if self.data.exists():
            shutil.rmtree(self.data)  # an initdb that did not come to its end
        self.data.mkdir(mode=0o700)
        identity.give(self.data)
        password_file = self.state.folder / "password.new"
        write_private(password_file, str(self.facts["passwords"][ROOT]))
        identity.give(password_file)
        major = int(str(self.facts["version"]).split(".")[0])
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if major >= 17 else []
        command = [
            str(folder / "initdb"), "-D", str(self.data), "-U", ROOT, "-E", "UTF8", "--locale=C", *locale,
            "--pwfile", str(password_file), "--auth=scram-sha-256", "--data-checksums",
        ]  # fmt: skip
        try:
            done = run(command, **identity.popen_arguments())
        finally:
            password_file.unlink(missing_ok=True)
        if done.returncode:
            raise Misconfigured(f"PostgreSQL's initdb failed: {done.stderr.strip() or done.stdout.strip()}")
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(_CONFIGURATION)
            if _has_little_shared_memory():
                file.write("dynamic_shared_memory_type = mmap\n")

    def _start(self, folder: Path, identity: Identity) -> None:
        self._make_socket_folder(identity)
        self.log.touch(mode=0o600)
        identity.give(self.log)
        self._void_stale_pid_file()
        command = [str(folder / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        command += ["-c", f"unix_socket_directories={self.sockets if self.sockets.exists() else ''}"]
        for setting, value in self.options.items():
            command += ["-c", f"{setting}={value}"]
        end = time.monotonic() + START_SECONDS
        server: subprocess.Popen[bytes] | None = None
        while time.monotonic() < end:
            if server is None:
                server = self._spawn(command, identity)
            if server.poll() is not None:
                # After kill -9 the old backends need a moment to notice; PostgreSQL waits for them, and so do we.
                if "still in use" not in tail(self.log):
                    raise Misconfigured(f"PostgreSQL ended with {server.returncode}: {tail(self.log)}")
                server = None
                time.sleep(0.5)
            elif not port_is_free(self.port) and self._answers():
                server.returncode = 0  # a daemon: not ours to wait for, and no warning that it still runs
                return
            time.sleep(0.03)
        raise Misconfigured(f"PostgreSQL did not become ready within {START_SECONDS:.0f} s: {tail(self.log)}")

    def _spawn(self, command: list[str], identity: Identity) -> subprocess.Popen[bytes]:
        arguments = {"cwd": str(self.data), **identity.popen_arguments()}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **arguments
            )

    def _make_socket_folder(self, identity: Identity) -> None:
        if len(os.fsencode(self.sockets)) + len("/.s.PGSQL.65535") < LONGEST_SOCKET:
            self.sockets.mkdir(mode=0o700, exist_ok=True)
            identity.give(self.sockets)

    def _void_stale_pid_file(self) -> None:
        """After kill -9 or a reboot postmaster.pid can name another program's pid, and PostgreSQL would not start.

        Only the pid is replaced, by one that is dead. The line with the shared memory stays, by which PostgreSQL sees
        whether old backends still write: deleting the file would take that guard away.
        """
        path = self.data / "postmaster.pid"
        if read_pid(path) is None or self.pid is not None:
            return
        for socket_file in self.sockets.glob(".s.PGSQL.*"):
            socket_file.unlink(missing_ok=True)
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        with path.open("r+", encoding="utf-8") as file:
            rest = file.read().split("\n", 1)[1:]
            file.seek(0)
            file.truncate()
            file.write("\n".join([str(dead.pid), *rest]))

    def _make_roles(self) -> None:
        passwords = self.facts["passwords"]
        statements = []
        for role in ROLES:
            # The owner makes databases for tests; nobody makes roles or passes row-level security by.
            rights = "CREATEDB" if role == OWNER else "NOCREATEDB"
            attributes = f"LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE {rights} PASSWORD '{passwords[role]}'"
            known = role in self.query("SELECT rolname FROM pg_roles").split()
            statements.append(f"{'ALTER' if known else 'CREATE'} ROLE {role} {attributes};")
        self.query("\n".join(statements))
        if DATABASE not in self.query("SELECT datname FROM pg_database").split():
            self.query(f"CREATE DATABASE {DATABASE} OWNER {OWNER};")
        self.query(database_grants(DATABASE))

    def _answers(self) -> bool:
        return "port" in self.facts and self._psql("SELECT 1", ROOT, "postgres").returncode == 0

    def _psql(self, sql: str, role: str, database: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(self.facts["folder"]) / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database]
        environment = {
            "PATH": os.environ.get("PATH", ""),  # and no PG… variable of the user's
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": role,
            "PGPASSWORD": str(self.facts["passwords"][role]),
            "PGCONNECT_TIMEOUT": "3",
        }
        return run(command, input=sql, env=environment)


def database_grants(database: str) -> str:
    """Who may connect. What they may do there is granted by the migrations."""
    return (
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO {APP}, {OPS}, {ADMIN};"
    )


def _has_little_shared_memory() -> bool:
    try:
        return shutil.disk_usage("/dev/shm").total < LITTLE_SHARED_MEMORY  # noqa: S108  asked for its size
    except OSError:
        return False


_CONFIGURATION = """
# -- written by agentfarm.local
listen_addresses = '127.0.0.1'
max_connections = 300
shared_buffers = 128MB
logging_collector = off
log_line_prefix = '%m [%p] %a %u '
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
password_encryption = scram-sha-256
"""

"""A second PostgreSQL that follows the first synchronously: what was acknowledged is on both; it can be promoted."""

import os
import subprocess
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from agentfarm.local.identity import choose_identity
from agentfarm.local.postgres import DATABASE, ROOT, Postgres
from agentfarm.local.processes import free_port, run
from tests.farm import wait_for


class Standby:
    """primary  running; from `follow` on each of its commits waits for this server"""

    def __init__(self, primary: Postgres, folder: Path) -> None:
        self._primary = primary
        self._programs = Path(str(primary.facts["folder"]))
        self._identity = choose_identity(folder, self._programs / "postgres")
        self._data, self._log = folder / "pg", folder / "pg.log"
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None

    def follow(self) -> None:
        self._copy()
        command = [self._programs / "postgres", "-D", self._data, "-p", str(self.port)]
        options = {"fsync": "off", "max_connections": "400", "unix_socket_directories": ""}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                [*command, *settings],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                **{"cwd": str(self._data), **self._identity.popen_arguments()},
            )  # fmt: skip
        self._primary.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._primary.query("SELECT pg_reload_conf()")
        wait_for(
            lambda: self._primary.query("SELECT sync_state FROM pg_stat_replication") == "sync",
            what=f"a standby that follows; log: {self._log}",
        )

    def promote(self) -> None:
        """Back when it takes writes."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)

    def url(self) -> str:
        """As the superuser."""
        return psycopg.conninfo.make_conninfo(self._primary.url(ROOT, DATABASE), port=self.port)

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(3)  # SIGQUIT: nobody needs its data any more
            self._server.wait(30)

    def _copy(self) -> None:
        self._data.mkdir(mode=0o700)
        for path in (self._data, self._log):
            path.touch()
            self._identity.give(path)
        there = conninfo_to_dict(self._primary.url(ROOT))
        environment = {**os.environ, "PGPASSWORD": str(there["password"])}
        address = ["-h", str(there["host"]), "-p", str(there["port"]), "-U", str(there["user"])]
        # -R: what it follows, and that it is a standby; -c fast: a checkpoint that does not take its time
        command = [str(self._programs / "pg_basebackup"), "-D", str(self._data), *address, "-R", "-c", "fast"]
        done = run(command, env=environment, **self._identity.popen_arguments())
        assert done.returncode == 0, done.stderr


def of_both(url: str, standby: Standby) -> str:
    """The URL of the first server as one of both: the one that takes writes."""
    host, _, rest = url.partition("@")
    address, _, database = rest.partition("/")
    return f"{host}@{address},127.0.0.1:{standby.port}/{database}?target_session_attrs=read-write"

"""A Valkey (or Redis) of our own below the folder: a daemon on 127.0.0.1 with a password, its file written each second.

Database 0 is the farm's (streams, wake-ups), database 1 the broker's.
"""

import contextlib
import os
import secrets
import socket
from typing import Any

from agentfarm.errors import Misconfigured
from agentfarm.local.binaries import find_valkey
from agentfarm.local.processes import free_port, port_is_free, run, tail, wait_gone, wait_until
from agentfarm.local.state import State, write_private

#: A long append-only file takes long to load.
START_SECONDS = 60.0
STOP_SECONDS = 20.0

#: For tests: each of their processes has its own.
DATABASES = 64


class Valkey:
    name = "Valkey"

    def __init__(self, state: State) -> None:
        self.state = state
        self.facts: dict[str, Any] = state.section("valkey")
        self.data, self.log = state.folder / "valkey", state.folder / "valkey.log"

    @property
    def port(self) -> int:
        return int(self.facts["port"])

    @property
    def pid(self) -> int | None:
        for line in self._ask("INFO", "server").splitlines():
            if line.startswith("process_id:"):
                return int(line.partition(":")[2])
        return None

    def url(self, database: int = 0) -> str:
        return f"redis://:{self.facts['password']}@127.0.0.1:{self.port}/{database}"

    def describe(self) -> str:
        return f"{self.facts['version']} ({self.facts['source']})"

    def is_ready(self) -> bool:
        """Ours, and answering: nobody else's server knows the password."""
        try:
            return self._ask("PING").startswith("+OK\r\n+PONG")
        except OSError:
            return False

    def start(self) -> None:
        """Idempotent. Raises Misconfigured, which ends with the last lines of the server's log."""
        if self.is_ready():
            return
        program, source = find_valkey()
        said = run([str(program), "--version"]).stdout
        if "v=" not in said:
            raise Misconfigured(f"{program} does not run on this machine: it said {said.strip()!r}.")
        self.facts.update(source=source, version=said.split("v=")[1].split()[0])
        self.facts.setdefault("password", secrets.token_urlsafe(18))
        if "port" not in self.facts or not port_is_free(self.port):
            self.facts["port"] = free_port()
        self.state.save()
        self.data.mkdir(mode=0o700, exist_ok=True)
        configuration = self.data / "valkey.conf"
        write_private(configuration, self._configuration())
        done = run([str(program), str(configuration)], cwd=str(self.data), start_new_session=True)
        if done.returncode:
            raise Misconfigured(f"{program.name} failed: {done.stdout}{done.stderr}{tail(self.log)}")
        if not wait_until(self.is_ready, seconds=START_SECONDS):
            raise Misconfigured(f"{program.name} did not become ready within {START_SECONDS:.0f} s: {tail(self.log)}")

    def stop(self) -> bool:
        """Whether there was one to stop. It writes its file first."""
        if not self.is_ready():
            return False
        pid = self.pid
        with contextlib.suppress(ConnectionError):  # it may close before it answers
            self._ask("SHUTDOWN")
        if pid and not wait_gone(pid, seconds=STOP_SECONDS):
            raise Misconfigured(f"Valkey (pid {pid}) does not stop; see {self.log}.")
        return True

    def _configuration(self) -> str:
        lines = [
            "bind 127.0.0.1",
            "protected-mode yes",
            f"port {self.port}",
            f"requirepass {self.facts['password']}",
            f'dir "{self.data}"',
            f'logfile "{self.log}"',
            "daemonize yes",
            f"databases {DATABASES}",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            "maxclients 10000",
        ]
        return "\n".join([*lines, ""])

    def _ask(self, *words: str) -> str:
        """The answers to AUTH and to the command, as they came. Raises OSError where nobody listens."""
        if "port" not in self.facts or "password" not in self.facts:
            raise ConnectionRefusedError("never started")
        commands = (("AUTH", str(self.facts["password"])), words, ("QUIT",))
        with socket.create_connection(("127.0.0.1", self.port), timeout=3.0) as connection:
            connection.sendall(b"".join(_encode(command) for command in commands))
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        return answer.decode(errors="replace")


def _encode(words: tuple[str, ...]) -> bytes:
    parts = [os.fsencode(word) for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)

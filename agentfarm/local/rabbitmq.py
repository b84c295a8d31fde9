"""A RabbitMQ node of our own below the folder, from the system's `rabbitmq-server`: for tests, and who wants it.

Nothing of it touches a standard port or a running RabbitMQ of the machine: own epmd, own distribution port, own
cookie, loopback only. The management plugin answers on a port of its own: for Flower's queue page, and to make virtual
hosts.
"""

import base64
import http.client
import json
import os
import secrets
import signal
import subprocess
from typing import Any
from urllib.parse import quote

from agentfarm.errors import Misconfigured
from agentfarm.local.binaries import find_rabbitmq
from agentfarm.local.processes import free_port, has_argument, port_is_free, run, tail, wait_gone, wait_until
from agentfarm.local.state import State, write_private

USER = "farm"
VIRTUAL_HOST = "agentfarm"

#: Erlang's start on a busy machine of two cores: 5 to 12 s seen.
START_SECONDS = 90.0
STOP_SECONDS = 40.0

PORTS = ("amqp", "management", "distribution", "epmd")


class RabbitMQ:
    name = "RabbitMQ"

    def __init__(self, state: State) -> None:
        self.state = state
        self.facts: dict[str, Any] = state.section("rabbitmq")
        self.data, self.log = state.folder / "rabbitmq", state.folder / "rabbitmq.log"

    @staticmethod
    def is_installed() -> bool:
        return find_rabbitmq() is not None

    @property
    def pid(self) -> int | None:
        pid = self.facts.get("pid")
        return pid if has_argument(pid, str(self.data)) else None

    def url(self, virtual_host: str = VIRTUAL_HOST) -> str:
        port = self.facts["ports"]["amqp"]
        return f"amqp://{USER}:{self.facts['password']}@127.0.0.1:{port}/{quote(virtual_host, safe='')}"

    def management_url(self) -> str:
        return f"http://{USER}:{self.facts['password']}@127.0.0.1:{self.facts['ports']['management']}/api/"

    def describe(self) -> str:
        return f"{self.facts['version']} (system)"

    def is_ready(self) -> bool:
        try:
            return self.pid is not None and self._call("GET", "overview") is not None
        except (OSError, http.client.HTTPException):
            return False

    def start(self) -> None:
        """Idempotent. Raises Misconfigured, which ends with the last lines of the node's log."""
        if self.is_ready():
            return
        script = find_rabbitmq()
        if script is None:
            raise Misconfigured(
                "There is no rabbitmq-server on this machine. Install it (Debian: apt-get install rabbitmq-server), "
                "set FARM_RABBITMQ_SERVER to its path, or use the broker that needs nothing: BROKER=redis."
            )
        if self.pid is not None:
            raise Misconfigured(f"A RabbitMQ (pid {self.pid}) holds {self.data} but does not answer; see {self.log}.")
        self._choose_ports()
        self._write_configuration()
        with self.log.open("ab") as log:
            node = subprocess.Popen(
                [str(script)],
                cwd=self.data,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.facts["pid"] = node.pid
        self.state.save()
        wait_until(lambda: node.poll() is not None or self.is_ready(), seconds=START_SECONDS)
        if not self.is_ready():
            node.kill()
            node.wait()
            self._end_epmd()
            raise Misconfigured(f"RabbitMQ did not become ready: {tail(self.log)}")
        node.returncode = 0  # a daemon: not ours to wait for, and no warning that it still runs
        overview = self._call("GET", "overview") or {}
        self.facts["version"] = overview.get("rabbitmq_version", "")
        self.make_virtual_host(VIRTUAL_HOST)
        self.state.save()

    def stop(self) -> bool:
        """Whether there was one to stop."""
        pid = self.pid
        if pid is None:
            return False
        os.kill(pid, signal.SIGTERM)
        if not wait_gone(pid, seconds=STOP_SECONDS):
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid, seconds=5)
        self._end_epmd()
        return True

    def make_virtual_host(self, name: str) -> str:
        """Its URL. Queues of one are not seen in another."""
        path = quote(name, safe="")
        self._call("PUT", f"vhosts/{path}", {})
        self._call("PUT", f"permissions/{path}/{USER}", {"configure": ".*", "write": ".*", "read": ".*"})
        return self.url(name)

    def drop_virtual_host(self, name: str) -> None:
        self._call("DELETE", f"vhosts/{quote(name, safe='')}")

    def _choose_ports(self) -> None:
        known: dict[str, int] = self.facts.setdefault("ports", {})
        for name in PORTS:
            if name not in known or not port_is_free(known[name]):
                known[name] = free_port()
        self.facts.setdefault("password", secrets.token_urlsafe(18))
        self.facts.setdefault("cookie", secrets.token_hex(16))
        # The node's name is its data's: a new name would begin with no queues.
        self.facts.setdefault("node", f"farm{secrets.token_hex(4)}@localhost")

    def _write_configuration(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        ports = self.facts["ports"]
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{ports['amqp']}",
            "management.tcp.ip = 127.0.0.1",
            f"management.tcp.port = {ports['management']}",
            f"default_user = {USER}",
            f"default_pass = {self.facts['password']}",
            # Quorum queues keep what is in their log in memory, too, until it is rolled over: at half a gigabyte, which
            # an hour of light load does not reach. A node seemed to leak (tests/soak: 77 MB an hour, as much as was
            # published).
            "raft.wal_max_size_bytes = 16000000",
            "log.console = true",
            "log.console.level = warning",
            "log.file = false",
        ]
        write_private(self.data / "rabbitmq.conf", "\n".join([*lines, ""]))
        (self.data / "enabled_plugins").write_text("[rabbitmq_management].\n", encoding="utf-8")
        cookie = self.data / ".erlang.cookie"
        write_private(cookie, str(self.facts["cookie"]))
        cookie.chmod(0o400)

    def _environment(self) -> dict[str, str]:
        ports = self.facts["ports"]
        return {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": str(self.data),
            "ERL_EPMD_PORT": str(ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": str(self.facts["node"]),
            "RABBITMQ_NODE_PORT": str(ports["amqp"]),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(ports["distribution"]),
            "RABBITMQ_MNESIA_BASE": str(self.data / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.data / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.data / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.data / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes Erlang: one pid, which ends well on SIGTERM
        }

    def _end_epmd(self) -> None:
        """Erlang's port mapper is a daemon of its own; on our port nobody else uses it."""
        run(["epmd", "-kill"], env=self._environment())

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """The management API's answer as JSON, or None when it has none or refuses."""
        login = base64.b64encode(f"{USER}:{self.facts['password']}".encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.facts["ports"]["management"], timeout=10)
        try:
            headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
            connection.request(method, f"/api/{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        return json.loads(content) if answer.status < 300 and content else None

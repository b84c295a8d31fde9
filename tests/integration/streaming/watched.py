"""A Redis with a replica, and the Sentinel that promotes it."""

from pathlib import Path

from redis import Redis

from tests.farm import free_port, wait_for
from tests.integration.streaming.valkey import Valkey

PASSWORD = "p@ss,w/ord"  # with all that a URL writes in another way
SERVICE = "farm"

SENTINEL = """
port {port}
bind 127.0.0.1
sentinel monitor {service} 127.0.0.1 {primary} 1
sentinel auth-pass {service} {password}
sentinel down-after-milliseconds {service} 1000
sentinel failover-timeout {service} 3000
"""


class Watched:
    """A primary, its replica, and a Sentinel that names the one that takes writes."""

    def __init__(self, folder: Path) -> None:
        for name in ("primary", "replica", "sentinel"):
            (folder / name).mkdir()
        self._primary = Valkey(folder / "primary", password=PASSWORD).start()
        follows = ("--replicaof", f"127.0.0.1 {self._primary.port}")
        self.replica = Valkey(folder / "replica", *follows, password=PASSWORD).start()
        told = SENTINEL.format(port=free_port(), service=SERVICE, primary=self._primary.port, password=PASSWORD)
        configuration = folder / "sentinel" / "sentinel.conf"
        configuration.write_text(told)
        self._sentinel = Valkey(folder / "sentinel", str(configuration), "--sentinel").start()
        wait_for(self._is_watched, what="a Sentinel that knows primary and replica")

    def url(self, database: int = 0) -> str:
        """One of its Sentinels is away."""
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{self._sentinel.port}"
        return f"sentinel://:p%40ss%2Cw%2Ford@{hosts}/{SERVICE}/{database}"

    def lose_primary(self) -> None:
        """Once the replica has all of it: what was not there yet would be lost."""
        with self._primary.client() as client:
            wait_for(lambda: _has_all(client), what="a replica that has all")
        self._primary.kill()

    def cut_replica_off(self) -> None:
        """What the primary takes from now on, the replica lacks; the Sentinel promotes it all the same."""
        with self._primary.client() as primary, self.replica.client() as replica:
            wait_for(lambda: _has_all(primary), what="a replica that has all until now")
            replica.config_set("masterauth", "none that the primary knows")
            primary.client_kill_filter(_type="replica")
            wait_for(lambda: primary.info("replication")["connected_slaves"] == 0, what="a replica that is cut off")

    def lose_primary_now(self) -> None:
        """Back when the Sentinel names the other."""
        before = self._primary.port
        self._primary.kill()
        with self._sentinel.client() as client:
            wait_for(lambda: client.sentinel_master(SERVICE)["port"] != before, what="a new primary", seconds=60)

    def stop(self) -> None:
        for server in (self._sentinel, self.replica, self._primary):
            server.kill()

    def _is_watched(self) -> bool:
        with self._sentinel.client() as client:
            primary = client.sentinel_master(SERVICE)
            return primary["num-slaves"] == 1 and not primary["is_sdown"]


def _has_all(client: "Redis") -> bool:
    now = client.info("replication")
    replica = now.get("slave0")
    return bool(replica) and replica["state"] == "online" and replica["offset"] == now["master_repl_offset"]

"""A Redis cluster of three servers on loopback, without replicas."""

from pathlib import Path

from redis import Redis
from redis.crc import key_slot

from tests.farm import free_port, wait_for
from tests.integration.streaming.valkey import Valkey

SLOTS = 16384


class RedisCluster:
    """Each server has a third of the slots. One that is lost takes its own with it, and no others."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self.servers: list[Valkey] = []
        buses = []
        for number in range(count):
            (folder / str(number)).mkdir()
            buses.append(free_port())
            options = {
                "--cluster-enabled": "yes",
                "--cluster-config-file": "nodes.conf",
                "--cluster-port": str(buses[-1]),
                "--cluster-announce-ip": "127.0.0.1",
                "--cluster-node-timeout": "1000",
                "--cluster-require-full-coverage": "no",
            }
            words = [word for pair in options.items() for word in pair]
            self.servers.append(Valkey(folder / str(number), *words).start())
        for number, server in enumerate(self.servers):
            with server.client() as client:
                first, last = SLOTS * number // count, SLOTS * (number + 1) // count - 1
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER MEET", "127.0.0.1", self.servers[0].port, buses[0])
        wait_for(self._is_whole, what="a whole cluster", seconds=30)

    @property
    def url(self) -> str:
        return "cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def place_of(self, key: str) -> int:
        """Which of the servers has it."""
        return key_slot(key.encode()) * len(self.servers) // SLOTS

    def give_slot_away(self, key: str) -> None:
        """To the next server, without what is in it: as if it had been moved while nobody looked."""
        taker = self.servers[(self.place_of(key) + 1) % len(self.servers)]
        with taker.client() as client:
            name = client.execute_command("CLUSTER MYID")
        for server in self.servers:
            with server.client() as client:
                _forget(client, key)
                client.execute_command("CLUSTER SETSLOT", key_slot(key.encode()), "NODE", name)

    def stop(self) -> None:
        for server in self.servers:
            server.kill()

    def _is_whole(self) -> bool:
        for server in self.servers:
            with server.client() as client:
                told = client.execute_command("CLUSTER INFO")
            if told["cluster_state"] != "ok" or int(told["cluster_known_nodes"]) != len(self.servers):
                return False
            if int(told["cluster_slots_assigned"]) != SLOTS:
                return False
        return True


def _forget(client: "Redis", key: str) -> None:
    """A server does not give a slot away in which there is something."""
    slot = key_slot(key.encode())
    for found in client.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000):
        client.delete(found)

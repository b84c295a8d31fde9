"""Pids, ports, and children that do not outlive their parent. Linux and macOS."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.02


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose last connections still linger counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def is_alive(pid: int | None) -> bool:
    """A zombie is not alive."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # no /proc (macOS): kill's answer is all there is
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    return True


def command_line(pid: int) -> str | None:
    """None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return run(["ps", "-o", "command=", "-p", str(pid)]).stdout.strip() or None


def has_argument(pid: int | None, text: str) -> bool:
    """Whether a live process was started with this text: a pid file alone may name another program after a reboot."""
    if not is_alive(pid):
        return False
    return text in (command_line(pid or 0) or "")


def read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8").split()[0])
    except (OSError, ValueError, IndexError):
        return None


def wait_until(fact: Callable[[], bool], *, seconds: float) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def wait_gone(pid: int, *, seconds: float) -> bool:
    return wait_until(lambda: not is_alive(pid), seconds=seconds)


def die_with_parent(number: int = signal.SIGKILL) -> Callable[[], None] | None:
    """A preexec_fn by which the kernel signals the child when the thread that starts it ends, also by kill -9.

    None on other systems than Linux: there the next start ends what a killed supervisor left behind.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before we asked
            os.kill(os.getpid(), number)

    return ask


def tail(path: Path, lines: int = 6) -> str:
    try:
        return " | ".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run to the end, output captured; the caller looks at returncode."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]

"""PostgreSQL refuses to be root. Where we are, it runs as an account that can reach its files, or in a user namespace.

Nothing is made, changed or opened for that: no account, no mode of a folder above. In the namespace root is not uid 0,
yet the files stay root's. Docker's default profile forbids namespaces; then the account is the way.
"""

import ctypes
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agentfarm.errors import Misconfigured

CLONE_NEWUSER = 0x10000000
NOBODY = 65534

#: Tried in this order; FARM_USER comes before.
ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a server runs as."""

    how: Literal["self", "account", "namespace"]
    name: str = ""
    uid: int = -1
    gid: int = -1

    def popen_arguments(self) -> dict[str, Any]:
        """For subprocess. What runs under another identity must not stand in a folder that it cannot read."""
        if self.how == "account":
            return {"user": self.uid, "group": self.gid, "extra_groups": [], "cwd": "/"}
        if self.how == "namespace":
            return {"preexec_fn": _enter_namespace(self.uid, self.gid), "cwd": "/"}
        return {}

    def give(self, path: Path) -> None:
        """Make it the owner of a file or folder of ours."""
        if self.how == "account":
            os.chown(path, self.uid, self.gid)

    def __str__(self) -> str:
        return f"{self.how} {self.name}".strip()


SELF = Identity("self")
IN_NAMESPACE = Identity("namespace", "", NOBODY, NOBODY)


def choose_identity(folder: Path, executable: Path) -> Identity:
    """Ourselves where we are not root. Raises Misconfigured when there is no way, and says what would be one."""
    if os.geteuid() != 0:
        # initdb wants a name: a container that runs as a mere number (OpenShift) has none.
        return SELF if _has_name() or not _namespaces_work() else IN_NAMESPACE
    for name in filter(None, (os.environ.get("FARM_USER"), *ACCOUNTS)):
        account = _account(name)
        if account is not None and _reaches(account, folder, executable):
            return account
    if _namespaces_work():
        return IN_NAMESPACE
    raise Misconfigured(
        f"PostgreSQL refuses to run as root, no account ({', '.join(ACCOUNTS)}) can reach {folder} and {executable}, "
        "and user namespaces are off here. Run as another user; or set FARM_USER to an account that can reach both; or "
        "use a folder and a virtual environment outside of /root (--folder /var/tmp/farm); or set DATABASE_URL."
    )


def _has_name() -> bool:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def _account(name: str) -> Identity | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Identity("account", name, entry.pw_uid, entry.pw_gid) if entry.pw_uid else None


def _reaches(account: Identity, folder: Path, executable: Path) -> bool:
    script = 'for path in "$@"; do test -x "$path" || exit 1; done'
    command = ["/bin/sh", "-c", script, "sh", str(folder), str(executable)]
    return subprocess.run(command, check=False, **account.popen_arguments()).returncode == 0


def _namespaces_work() -> bool:
    if sys.platform != "linux":
        return False
    try:
        probe = subprocess.run(
            [sys.executable, "-c", "import os; print(os.geteuid())"],
            capture_output=True,
            text=True,
            check=False,
            **IN_NAMESPACE.popen_arguments(),
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return probe.returncode == 0 and probe.stdout.strip() == str(NOBODY)


def _enter_namespace(uid: int, gid: int) -> Callable[[], None]:
    """A preexec_fn: a user namespace in which our own ids are `uid` and `gid`."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork

    def enter() -> None:
        if libc.unshare(CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        maps = (("setgroups", "deny"), ("uid_map", f"{uid} {outer_uid} 1"), ("gid_map", f"{gid} {outer_gid} 1"))
        for name, text in maps:
            descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(descriptor, text.encode())
            os.close(descriptor)

    return enter

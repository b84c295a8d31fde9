"""What the local farm remembers between two starts: `.farm/state.json`, readable by its owner only.

Ports are chosen once and kept, passwords are made once. The folder is used by one program at a time (`locked`).
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentfarm.errors import Misconfigured

FILE = "state.json"

#: What a farm keeps in its folder. `reset` deletes these and nothing else.
OURS = (
    *(FILE, "lock", ".gitignore", "farm.env", "secrets.json", "supervisor.json", "supervisor.lock", "logs"),
    *("pg", "pg.log", "run", "valkey", "valkey.log", "rabbitmq", "rabbitmq.log"),
)

#: What others keep there: servers of tests and benchmarks, downloads, tools.
NEIGHBOURS = ("test", "test-lock", "bench", "chaos", "upstream", "tools")


class State:
    """A small document of sections, one a server. What is set is on disk when `save` returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sections: dict[str, dict[str, Any]] = {}
        self.reload()

    def reload(self) -> None:
        try:
            self._sections = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._sections = {}
        except ValueError as error:
            raise Misconfigured(
                f"{self.folder / FILE} cannot be read. It holds ports and passwords of the local servers; without it "
                f"their data is of no use: `make reset FOLDER={self.folder}`."
            ) from error

    def section(self, name: str) -> dict[str, Any]:
        """A live dict: change it, then `save`."""
        return self._sections.setdefault(name, {})

    def secret(self, name: str) -> str:
        """Made when first asked for, the same ever after."""
        known = self.section("secrets")
        if name not in known:
            known[name] = secrets.token_urlsafe(24)
            self.save()
        return str(known[name])

    def save(self) -> None:
        write_private(self.folder / FILE, json.dumps(self._sections, indent=1))


def write_private(path: Path, text: str) -> None:
    """Replace the file whole; others cannot read it, not even for a moment."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[State]:
    """The folder's state, for one program at a time: two starts at once give one server."""
    make_folder(folder)
    with (folder / "lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield State(folder)


def make_folder(folder: Path) -> None:
    """Make it and keep git away from what is in it. Raises Misconfigured for a folder that holds something else."""
    if folder.is_dir() and not (folder / ".gitignore").exists() and not _names(folder) <= {*OURS, *NEIGHBOURS}:
        raise Misconfigured(f"{folder} holds files that are not a farm's; choose another: `make run FOLDER=.farm-2`.")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".gitignore").exists():
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")


def empty_folder(folder: Path) -> None:
    """Delete what is a farm's, and the folder if nothing else is in it. Raises Misconfigured for another folder."""
    names = _names(folder)
    if FILE not in names and not names <= {*OURS, *NEIGHBOURS}:
        raise Misconfigured(f"{folder} is not a farm's folder; nothing was deleted.")
    for name in names & set(OURS):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not _names(folder):
        folder.rmdir()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}

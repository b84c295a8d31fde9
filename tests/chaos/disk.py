"""A small disk for one server, which a fault can fill to its last block. Only root can mount one."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

#: What Postgres writes in a quarter of an hour of storm goes in several times. It is memory, taken as it is filled.
DISK_BYTES: Final = 3 << 30

#: That much must be left for everything else.
SPARE_BYTES: Final = 4 << 30


class SmallDisk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> int:
        """To the last block, and how many bytes that took. What others free meanwhile is theirs again."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with _full_is_the_end():
                    while True:
                        file.write(bytes(size))
        return self._ballast.stat().st_size

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, *, disk_bytes: int = DISK_BYTES) -> Iterator[SmallDisk | None]:
    """One at the folder, as long as this is open; None where this machine has none to give. What was said there
    (*.log) stays behind in its place, whatever was raised."""
    folder.mkdir(parents=True)
    if psutil.virtual_memory().available < disk_bytes + SPARE_BYTES or not _mount(folder, disk_bytes):
        yield None
        return
    try:
        yield SmallDisk(folder)
    finally:
        logs = {path.name: path.read_bytes() for path in folder.glob("*.log")}
        subprocess.run(["umount", str(folder)], check=True)
        for name, said in logs.items():
            (folder / name).write_bytes(said)


def _mount(folder: Path, disk_bytes: int) -> bool:
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        return False
    options = ["-t", "tmpfs", "-o", f"size={disk_bytes},mode=755", "farm-chaos", str(folder)]
    return subprocess.run([mount, *options], capture_output=True, check=False).returncode == 0


@contextmanager
def _full_is_the_end() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise

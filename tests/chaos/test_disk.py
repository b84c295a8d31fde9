"""A small disk is as small as it says, and leaves what was said on it when it goes."""

from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.disk import SmallDisk, small_disk

DISK_BYTES = 1 << 20


def found(disk: SmallDisk | None) -> SmallDisk:
    if disk is None:
        pytest.skip("a disk of its own needs root, the right to mount one, and 4 GiB of free memory")
    return disk


def test_a_full_disk_takes_nothing_more_until_it_is_emptied(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", disk_bytes=DISK_BYTES) as made:
        disk = found(made)

        filled = disk.fill()

        assert filled == DISK_BYTES
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "more").write_bytes(b"x")
        disk.empty()
        (disk.folder / "more").write_bytes(b"x")


@pytest.mark.parametrize("fails", [True, False])
def test_what_was_said_on_a_disk_stays_whether_or_not_the_harness_fails(tmp_path: Path, fails: bool) -> None:
    folder = tmp_path / "disk"

    with suppress(RuntimeError), small_disk(folder, disk_bytes=DISK_BYTES) as made:
        (found(made).folder / "pg.log").write_text("no room")
        (folder / "data").write_text("much")
        if fails:
            raise RuntimeError("the harness failed")

    assert {path.name: path.read_text() for path in folder.iterdir()} == {"pg.log": "no room"}

"""The tests of exactly the releases that are locked, out of their sdists. Nothing of them is committed."""

import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".farm" / "upstream"

#: LangGraph's own settings for pytest are for its own repository.
PYTEST_INI = "[pytest]\naddopts = --strict-markers --snapshot-warn-unused\n"


@dataclass(frozen=True, slots=True)
class Sdist:
    """package  as PyPI names it; lock: the requirements file that names its release"""

    package: str
    lock: str = "requirements.txt"

    def locked_release(self) -> str:
        """The release of the lock, which must be the one that is installed."""
        pattern = rf"^{re.escape(self.package)}==(\S+)"
        found = re.search(pattern, (ROOT / self.lock).read_text(), re.MULTILINE)
        if found is None:
            raise SystemExit(f"{self.lock} does not lock {self.package}.")
        locked, installed = found.group(1), installed_version(self.package)
        if locked != installed:
            raise SystemExit(
                f"{self.package} {installed} is installed and {locked} is locked; install requirements-dev.txt."
            )
        return locked

    def fetch(self, release: str | None = None) -> Path:
        """A folder with the tests of a release (the locked one), below .farm/upstream. Downloaded by pip, once."""
        release = release or self.locked_release()
        suite = CACHE / f"{self.package}-{release}"
        if (suite / "complete").exists():
            return suite
        suite.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            archive = self._download(release, Path(scratch))
            _unpack_tests(archive, archive.name.removesuffix(".tar.gz"), suite)
        if not (suite / "tests").is_dir():
            raise SystemExit(f"The sdist of {self.package} {release} has no tests in it.")
        # Beside the tests and not above: the langgraph that is imported must be the installed one.
        (suite / "pytest.ini").write_text(PYTEST_INI)
        (suite / "complete").touch()
        return suite

    def install_beside(self, release: str) -> Path:
        """A folder to put first on PYTHONPATH: this release alone, over what else is installed."""
        folder = CACHE / f"{self.package}-{release}" / "site"
        if not folder.exists():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
            done = subprocess.run([*command, f"{self.package}=={release}"], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(f"{self.package} {release} could not be installed. pip said: {done.stderr[-400:]}")
        return folder

    def _download(self, release: str, folder: Path) -> Path:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", self.package]
        done = subprocess.run(
            [*command, f"{self.package}=={release}", "--dest", str(folder)], capture_output=True, text=True, check=False
        )
        archives = list(folder.glob("*.tar.gz"))
        if done.returncode != 0 or not archives:
            raise SystemExit(
                f"The sdist of {self.package} {release} could not be downloaded, and its tests are not below {CACHE} "
                f"yet. This gate needs PyPI once for each release. pip said: {done.stderr.strip()[-400:]}"
            )
        return archives[0]


def _unpack_tests(archive: Path, top: str, suite: Path) -> None:
    """Plain files and nothing else, and none outside of the folder; tarfile's own filters came with Python 3.11.4."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            content = tar.extractfile(member) if member.isfile() else None
            path = Path(member.name)
            if content is None or path.parts[:2] != (top, "tests") or ".." in path.parts:
                continue
            target = suite.joinpath(*path.parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())

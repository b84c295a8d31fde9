"""Run LangGraph's own tests through the engine: the gate of every upgrade.

The sdist of exactly the locked release is downloaded once, its tests are copied out of it (nothing of it is committed),
and run by pytest with plugin.py. A test that fails is run by stock LangGraph too, and then once more by the engine,
alone: what stock passes and the engine does not, twice, fails the gate, unless known_differences.txt names it with a
reason.

Each mode takes about a minute and a half on two cores; the default is ordinary and strict, over all files.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".farm" / "upstream"

MODES = {
    "ordinary": "values cross between two messages as bytes, live objects as they are; subgraphs by messages, too",
    "strict": "nothing but bytes crosses, and subgraphs run inside of their parent's node: as the server has it",
    "retry": "as ordinary; a RetryPolicy means a new message instead of a worker that sleeps",
    "force": "as ordinary; runs without a checkpointer get one, with our serializer",
}

#: LangGraph's own settings for pytest are for its own repository.
PYTEST_INI = "[pytest]\naddopts = --strict-markers --snapshot-warn-unused\n"

#: Seconds that one run of pytest may take. Ten times what it does.
PATIENCE_SECONDS = 1200


@dataclass
class Report:
    """What pytest did: {test: "passed" | "failed" | "skipped"}, and what the engine did in all of them."""

    outcomes: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    did: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> list[str]:
        return sorted(test for test, outcome in self.outcomes.items() if outcome == "failed")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    release = locked_release()
    suite = fetch_suite(release)
    stock = {"stock": Report(), "stock-force": Report()}
    differs = False
    for mode in options.modes:
        differs |= run_mode(mode, suite, release, options, stock)
    return 1 if differs else 0


def run_mode(mode: str, suite: Path, release: str, options: argparse.Namespace, stocks: dict[str, Report]) -> bool:
    """Whether the engine differs from stock in this mode. Says what it found.

    stocks  what stock has been asked so far, by its own mode; grows
    """
    base = "stock-force" if mode == "force" else "stock"
    stock = stocks[base]
    first = run_pytest(suite, mode, options.tests, workers=options.workers)
    if not first.did["segment_node"]:
        raise SystemExit(f"upstream {mode}: the engine executed no node at all, so nothing was tested.")
    known = known_differences(mode)
    failed = [test for test in first.failed if not known.get(test)]
    if unasked := [test for test in failed if test not in stock.outcomes]:
        stock.outcomes |= run_pytest(suite, base, unasked, workers=0).outcomes
    fails_in_stock = [test for test in failed if stock.outcomes.get(test) != "passed"]
    only_here = sorted(set(failed) - set(fails_in_stock))
    differing = run_pytest(suite, mode, only_here, workers=0).failed if only_here else []
    for test in differing:
        print(f"DIFFERS  {test}\n         {first.errors.get(test, '')[:300]}")
    for test in sorted(set(only_here) - set(differing)):
        print(f"failed once, passed alone: {test}")
    for test in sorted(t for t in known if first.outcomes.get(t) == "passed"):
        print(f"no difference any more, take it out of known_differences.txt: {test}")
    counts = Counter(first.outcomes.values())
    print(
        f"upstream langgraph {release}, {mode}: {counts['passed']} passed, {counts['skipped']} skipped, "
        f"{len(fails_in_stock)} fail in stock as well, {len(set(first.failed) & set(known))} known differences, "
        f"{len(differing)} differ; {first.did['segment_node']} node executions in {first.did['run']} runs"
    )
    return bool(differing)


# --------------------------------------------------------------------------- pytest


def run_pytest(suite: Path, mode: str, tests: Iterable[str], *, workers: int) -> Report:
    """Raises SystemExit when pytest itself failed, with the end of what it said."""
    with tempfile.TemporaryDirectory() as scratch:
        lines, log = Path(scratch, "report.jsonl"), Path(scratch, "log.txt")
        environment = {
            **os.environ,
            "AGENTFARM_UPSTREAM_MODE": mode,
            "AGENTFARM_UPSTREAM_REPORT": str(lines),
            "NO_DOCKER": "true",  # no servers: the tests that need them are skipped
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE))),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", "--rootdir", ".", "-p", "plugin"]
        command += ["-p", "no:cacheprovider", "-p", "no:django", "--tb=short", "--timeout", "60"]
        command += ["-n", str(workers)] if workers > 1 else []
        with log.open("w") as output:
            done = subprocess.run(
                [*command, *tests],
                cwd=suite,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE_SECONDS,
                check=False,
            )
        if done.returncode not in (0, 1) or not lines.exists():
            tail = log.read_text(errors="replace")[-3000:]
            raise SystemExit(f"pytest ended with {done.returncode} in mode {mode}:\n{tail}")
        return read_report(lines)


def read_report(path: Path) -> Report:
    report = Report()
    for line in path.read_text().splitlines():
        told: dict[str, Any] = json.loads(line)
        report.outcomes[told["test"]] = told["outcome"]
        report.did.update(told["did"])
        if told["error"]:
            report.errors[told["test"]] = told["error"]
    return report


def known_differences(mode: str) -> dict[str, str]:
    """{test: reason} of those that cannot be equal in this mode."""
    known = {}
    for line in (HERE / "known_differences.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            modes, test, reason = line.split(maxsplit=2)
            if modes == "all" or mode in modes.split(","):
                known[test] = reason
    return known


# --------------------------------------------------------------------------- the suite


def locked_release() -> str:
    """The langgraph of requirements.txt, which must be the one that is installed."""
    found = re.search(r"^langgraph==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("requirements.txt does not lock langgraph.")
    locked, installed = found.group(1), installed_version("langgraph")
    if locked != installed:
        raise SystemExit(f"langgraph {installed} is installed and {locked} is locked; install requirements-dev.txt.")
    return locked


def fetch_suite(release: str) -> Path:
    """A folder with the tests of this release, below .farm/upstream. Downloaded by pip, once."""
    suite = CACHE / f"langgraph-{release}"
    if (suite / "complete").exists():
        return suite
    suite.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        archive = _download(release, Path(scratch))
        _unpack_tests(archive, f"langgraph-{release}", suite)
    if not (suite / "tests").is_dir():
        raise SystemExit(f"The sdist of langgraph {release} has no tests in it.")
    # Beside the tests and not above: the langgraph that is imported must be the installed one.
    (suite / "pytest.ini").write_text(PYTEST_INI)
    (suite / "complete").touch()
    return suite


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


def _download(release: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "langgraph"]
    done = subprocess.run(
        [*command, f"langgraph=={release}", "--dest", str(folder)], capture_output=True, text=True, check=False
    )
    archives = list(folder.glob("langgraph-*.tar.gz"))
    if done.returncode != 0 or not archives:
        raise SystemExit(
            f"The sdist of langgraph {release} could not be downloaded, and its tests are not below {CACHE} yet. "
            f"This gate needs PyPI once for each release. pip said: {done.stderr.strip()[-400:]}"
        )
    return archives[0]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    modes = "\n".join(f"  {name:<10}{what}" for name, what in MODES.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"modes:\n{modes}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--modes", type=_modes, default=["ordinary", "strict"], help="comma-separated; default: ordinary,strict"
    )
    parser.add_argument("--workers", type=int, default=2, help="pytest processes; default: 2")
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or test ids of the suite; default: all")
    return parser.parse_args(arguments)


def _modes(text: str) -> list[str]:
    modes = text.split(",")
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(MODES)}")
    return modes


if __name__ == "__main__":
    sys.exit(main())

"""Run tests of LangGraph's by pytest in a process of their own, and read what came of them."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdists import ROOT

HERE = Path(__file__).resolve().parent

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


def run_pytest(
    suite: Path,
    mode: str,
    tests: Iterable[str],
    *,
    plugin: str,
    workers: int,
    environment: Mapping[str, str],
    first: Sequence[str] = (),
) -> Report:
    """The tests with a plugin of this folder, which is told the mode.

    first   folders whose packages come before those that are installed
    raises  SystemExit when pytest itself failed, with the end of what it said
    """
    with tempfile.TemporaryDirectory() as scratch:
        lines, log = Path(scratch, "report.jsonl"), Path(scratch, "log.txt")
        told = {
            **os.environ,
            **environment,
            "AGENTFARM_UPSTREAM_MODE": mode,
            "AGENTFARM_UPSTREAM_REPORT": str(lines),
            "NO_DOCKER": "true",  # no servers: the tests that need them are skipped
            "PYTHONPATH": os.pathsep.join((*first, str(ROOT), str(HERE))),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", "--rootdir", ".", "-p", "report_plugin"]
        command += ["-p", plugin, "-p", "no:cacheprovider", "-p", "no:django", "--tb=short", "--timeout", "60"]
        command += ["-n", str(workers)] if workers > 1 else []
        with log.open("w") as output:
            done = subprocess.run(
                [*command, *tests],
                cwd=suite,
                env=told,
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


def is_known(test: str, known: Mapping[str, str]) -> bool:
    """Whether it is listed: with its parameters, or without, for all of them."""
    return test in known or test.split("[", maxsplit=1)[0] in known


def known_differences(mode: str) -> dict[str, str]:
    """{test: reason} of those that cannot be equal in this mode."""
    known = {}
    for line in (HERE / "known_differences.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            modes, test, reason = line.split(maxsplit=2)
            if mode in modes.split(","):
                known[test] = reason
    return known

"""pytest plugin: a JSON line a test, {test, outcome, did, error}, into the file that pytests.py reads."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

REPORT = os.environ.get("AGENTFARM_UPSTREAM_REPORT")

#: What our part did in the test that runs now.
DID: Counter[str] = Counter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    DID.clear()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if REPORT and (report.when == "call" or (report.when == "setup" and report.outcome != "passed")):
        error = f"{call.excinfo.typename}: {call.excinfo.value}"[:600] if call.excinfo else None
        line = {"test": item.nodeid, "outcome": report.outcome, "did": dict(DID), "error": error}
        with Path(REPORT).open("a") as file:
            file.write(json.dumps(line) + "\n")
    return report

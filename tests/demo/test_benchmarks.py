"""`python -m benchmarks`: that it measures, on a farm of its own that is gone afterwards. How fast is nobody's test."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.farm import ROOT


@pytest.mark.slow
def test_a_quick_look_measures_tokens_and_turns_and_writes_them_down(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "tokens", "chat", "--quick", "--folder", str(tmp_path / "bench")]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=170)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    page = (tmp_path / "bench" / "report" / "redis.md").read_text("utf-8")
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert titles == [
        "## 9 20 tokens, as fast as they come",
        "## 9 20 tokens, 10 ms apart",
        "## 10 A turn, messages as one value (add_messages)",
        "## 10 A turn, messages in a DeltaChannel",
    ]
    assert page.count("| farm, runs.stream |") == 4
    assert page.count("1 (baseline)") == 4

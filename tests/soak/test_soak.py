"""A soak of seconds: that it runs and reads what it is to judge. `make soak` judges, and takes an hour."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.farm import ROOT
from tests.soak.samples import KINDS

#: What only another broker has.
OF_RABBITMQ = "RabbitMQ"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_soak_reads_all_that_it_is_to_judge_and_is_too_short_to_acquit() -> None:
    command = [sys.executable, "-m", "tests.soak", "--seconds", "12", "--users", "2", "--every", "4", "--seed", "7"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as soak:
        try:
            said, _ = soak.communicate()
        except BaseException:  # too long, or Ctrl-C: it ends its servers and processes before it goes
            soak.terminate()
            soak.wait(60)
            raise

    report = Path(said.rpartition("report: ")[2].strip())
    with (report.parent / "samples.csv").open(encoding="utf-8") as file:
        read = {row["kind"] for row in csv.DictReader(file)}
    assert read == KINDS.keys() - {OF_RABBITMQ}, said
    wrong = [line for line in said.splitlines() if line.startswith("- **")]
    assert wrong == ["- **wrong**: nothing lived long enough to be judged: soak for longer"], said
    assert soak.returncode == 1

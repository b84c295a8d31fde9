"""Whatever starts the farm starts the processes of the Procfile, and tells them settings that there are."""

import re
import sys
from pathlib import Path

import yaml

from agentfarm.local import farm
from agentfarm.local.address import Address

ROOT = Path(__file__).resolve().parents[2]


def procfile() -> dict[str, str]:
    lines = (ROOT / "Procfile").read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines)


def essence(command: str) -> tuple[str, ...]:
    """What a process is, without its numbers, names and log level."""
    words = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", command).split()
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or word in {"python", "-m", sys.executable}:
            skip = False
            continue
        if word in {"-c", "-n", "-l", "-s", "--loglevel", "--schedule", "--host", "--port"}:
            skip = True
            continue
        kept.append(word)
    return tuple(sorted(kept))


def test_compose_runs_the_processes_of_the_procfile() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    commands = {name: service["command"] for name, service in compose["services"].items() if "build" in service}
    theirs = {name: essence(command) for name, command in procfile().items()}

    assert essence(commands["migrate"]) == theirs.pop("release")
    for name, command in theirs.items():
        assert essence(commands[name]) == command, name


def test_make_run_runs_the_processes_of_the_procfile() -> None:
    programs = farm.programs(Address("127.0.0.1", 1, 2))
    ours = {re.sub(r"-\d$", "", program.name): essence(" ".join(program.command)) for program in programs}
    theirs = {name: essence(command) for name, command in procfile().items() if name != "release"}

    assert ours == theirs

"""Whatever starts the farm starts the processes of the Procfile, and tells them settings that there are."""

import configparser
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentfarm.api.server import GRACE_SECONDS, LEAVE_SECONDS
from agentfarm.conf import Settings
from agentfarm.local import farm
from agentfarm.local.address import Address

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))

#: What a worker needs beyond AGENTFARM_DRAIN_SECONDS, as settings.md says.
BEYOND_DRAIN_SECONDS = 5

#: Variables that conf.py does not read: Flower's own, and the servers' passwords that Compose puts into URLs.
OTHERS = {"FLOWER_ADDRESS", "FLOWER_PORT", "FLOWER_BROKER_API"}
PASSWORDS = re.compile(r"^(POSTGRES|FARM_[A-Z]+|VALKEY|RABBITMQ)_PASSWORD$")


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


def test_compose_gives_each_process_the_time_that_its_end_may_take() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    drain = Settings.model_fields["drain_seconds"].default

    for name in procfile().keys() - {"release", "flower"}:
        grace = float(compose["services"][name]["stop_grace_period"].removesuffix("s"))
        assert grace >= (GRACE_SECONDS + LEAVE_SECONDS if name == "web" else drain + BEYOND_DRAIN_SECONDS), name


# --------------------------------------------------------------------------- Kubernetes


def manifests() -> list[dict[str, Any]]:
    text = (DEPLOY / "kubernetes" / "agentfarm.yaml").read_text(encoding="utf-8")
    return [found for found in yaml.safe_load_all(text) if found]


def deployments() -> dict[str, dict[str, Any]]:
    """{role: its pod's spec}"""
    return {
        found["metadata"]["name"]: found["spec"]["template"]["spec"]
        for found in manifests()
        if found["kind"] == "Deployment"
    }


def config_map() -> dict[str, str]:
    (found,) = (found["data"] for found in manifests() if found["kind"] == "ConfigMap")
    return dict(found)


def test_kubernetes_runs_the_processes_of_the_procfile() -> None:
    (migrate,) = (found for found in manifests() if found["kind"] == "Job")
    ours = {name: essence(shlex.join(spec["containers"][0]["command"])) for name, spec in deployments().items()}
    theirs = {name: essence(command) for name, command in procfile().items()}

    release = theirs.pop("release")
    assert essence(shlex.join(migrate["spec"]["template"]["spec"]["containers"][0]["command"])) == release
    assert ours == theirs


def test_kubernetes_gives_each_process_the_time_that_its_end_may_take() -> None:
    drain = float(config_map()["AGENTFARM_DRAIN_SECONDS"])

    for name, spec in deployments().items():
        grace = spec.get("terminationGracePeriodSeconds", 30)
        if name == "web":
            stop = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
            assert grace >= float(stop[1]) + GRACE_SECONDS + LEAVE_SECONDS
        else:
            assert grace >= drain + BEYOND_DRAIN_SECONDS, name


def test_kubernetes_probes_ask_for_a_name_that_is_allowed_and_a_path_that_is_there() -> None:
    allowed = config_map()["AGENTFARM_ALLOWED_HOSTS"].split(",")
    web = deployments()["web"]["containers"][0]

    asked = {probe: web[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}

    assert {probe: get["path"] for probe, get in asked.items()} == {
        "startupProbe": "/ok", "livenessProbe": "/ok", "readinessProbe": "/ready",
    }  # fmt: skip
    for get in asked.values():
        (host,) = (header["value"] for header in get["httpHeaders"] if header["name"] == "Host")
        assert host in allowed


def test_kubernetes_selects_the_pods_that_it_makes() -> None:
    pods = [found["spec"]["template"]["metadata"]["labels"] for found in manifests() if found["kind"] == "Deployment"]
    selectors = [
        found["spec"]["selector"].get("matchLabels", found["spec"]["selector"])
        for found in manifests()
        if "selector" in found.get("spec", {})
    ]

    assert selectors
    for selector in selectors:
        assert any(selector.items() <= labels.items() for labels in pods), selector


# --------------------------------------------------------------------------- systemd


def unit(path: Path) -> configparser.ConfigParser:
    read = configparser.ConfigParser(interpolation=None, strict=False)
    read.optionxform = str  # type: ignore[assignment, method-assign]  # its documented way to keep the letters' case
    read.read_string(path.read_text(encoding="utf-8"))
    return read


def test_systemd_runs_the_processes_of_the_procfile() -> None:
    ours = {
        path.stem.removeprefix("agentfarm-").rstrip("@"): essence(
            unit(path)["Service"]["ExecStart"].replace("/opt/agentfarm/.venv/bin/", "")
        )
        for path in UNITS
    }
    theirs = {name: essence(command) for name, command in procfile().items()}

    theirs["migrate"] = theirs.pop("release")
    assert ours == theirs


@pytest.mark.parametrize("path", [path for path in UNITS if "migrate" not in path.stem], ids=lambda path: path.stem)
def test_systemd_asks_the_parent_and_waits_as_long_as_its_end_may_take(path: Path) -> None:
    service = unit(path)["Service"]
    drain = Settings.model_fields["drain_seconds"].default
    needed = GRACE_SECONDS + LEAVE_SECONDS if path.stem == "agentfarm-web" else drain + BEYOND_DRAIN_SECONDS

    assert service["KillMode"] == "mixed"
    assert float(service["TimeoutStopSec"]) >= needed
    assert service["Restart"] == "always"


# --------------------------------------------------------------------------- settings


def known_variables() -> set[str]:
    known: set[str] = set()
    for field in Settings.model_fields.values():
        known.update(map(str, field.validation_alias.choices))  # type: ignore[union-attr]  # each is AliasChoices
    return known


def told_variables() -> dict[str, set[str]]:
    """{file: names of the variables that it gives to our processes}"""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    example = (DEPLOY / "agentfarm.env.example").read_text(encoding="utf-8")
    kubernetes = {
        *config_map(),
        *(one["name"] for spec in deployments().values() for one in spec["containers"][0].get("env", [])),
        *re.findall(r"[`=]([A-Z]+_[A-Z_]+)[`=]", (DEPLOY / "kubernetes" / "README.md").read_text(encoding="utf-8")),
    }
    return {
        "compose.yaml": {name for one in compose["services"].values() if "build" in one for name in one["environment"]},
        "agentfarm.env.example": set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)),
        "kubernetes": kubernetes,
        "systemd": {
            match
            for path in UNITS
            for match in re.findall(r"^Environment=([A-Z_]+)=", path.read_text(encoding="utf-8"), re.MULTILINE)
        },
    }


@pytest.mark.parametrize("place", ["compose.yaml", "agentfarm.env.example", "kubernetes", "systemd"])
def test_each_variable_that_a_process_is_told_is_a_setting(place: str) -> None:
    told = told_variables()[place]

    assert told
    assert {name for name in told - known_variables() - OTHERS if not PASSWORDS.match(name)} == set()

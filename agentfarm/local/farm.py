"""The product's own processes on one machine, what they are started with, and what a user needs to speak to them."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentfarm.conf import Settings, render_problems
from agentfarm.errors import Misconfigured
from agentfarm.local.address import DEFAULT_PORT, Address, choose_hosts
from agentfarm.local.services import Services
from agentfarm.local.state import locked, write_private

PROJECT = Path(__file__).resolve().parents[2]

#: Two, so that one can be killed and the other goes on.
WORKERS = 2
WORKER_SLOTS = 8
CPU_SLOTS = 2

OWN_CONFIG = PROJECT / "langgraph.json"

#: What of an environment made elsewhere would lead Django or Celery to other settings.
FOREIGN = ("DJANGO_SETTINGS_MODULE", "CELERY_CONFIG_MODULE", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep running."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """What farm_setup made: keys of two tenants, the admin's password."""

    key: str
    other_key: str
    admin_user: str
    admin_password: str


def check_choices(config: Path, host: str, port: int | None, given: Mapping[str, str]) -> None:
    """Raises Misconfigured, which names what is wrong, before anything has started.

    given  the environment: what the servers will add to it is not there yet
    """
    if not config.is_file():
        raise Misconfigured(f"{config} does not exist. CONFIG is the path of your langgraph.json.")
    to_come: dict[str, Any] = {
        "DATABASE_URL": given.get("DATABASE_URL") or "postgresql://to-come",
        "REDIS_URL": given.get("REDIS_URL") or "redis://to-come",
        "CELERY_BROKER_URL": given.get("CELERY_BROKER_URL") or "redis://to-come",
        "AGENTFARM_SECRET_KEY": "to come",
        "AGENTFARM_HOST": host,
        "PORT": DEFAULT_PORT if port is None else port,
    }
    try:
        Settings(**to_come)  # the rest is read from the environment
    except ValidationError as error:
        raise Misconfigured(render_problems(error)) from None


def make_environment(services: Services, address: Address, config: Path) -> dict[str, str]:
    """What every process of the farm is started with."""
    given = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    made = secrets_of(services.folder)
    if address.is_loopback:
        # For a first try by curl or Studio, without a key; refused at start on an address that others can reach.
        made["ANONYMOUS_TENANT"] = "demo"
    ours = {
        **services.environment(),
        "AGENTFARM_HOST": address.host,
        "AGENTFARM_ALLOWED_HOSTS": choose_hosts(address, given.get("AGENTFARM_ALLOWED_HOSTS", "")),
        "PORT": str(address.port),
        "FLOWER_PORT": str(address.flower_port),
        "FLOWER_URL": address.flower_url,  # the admin links to it
        "AGENTFARM_CONFIG": str(config.absolute()),
        "LANGGRAPH_STRICT_MSGPACK": "true",
        "PYTHONUNBUFFERED": "1",
    }
    return {**made, **given, **ours}


def secrets_of(folder: Path) -> dict[str, str]:
    """Made at the first call."""
    with locked(folder) as state:
        return {
            "AGENTFARM_SECRET_KEY": state.secret("secret_key"),
            "FLOWER_USER": "admin",
            "FLOWER_PASSWORD": state.secret("flower"),
        }


def programs(address: Address) -> tuple[Program, ...]:
    """Web, workers, beat and Flower, as Procfile has them."""
    celery = (sys.executable, "-m", "celery", "-A", "workers")
    worker = (*celery, "worker", "--without-gossip", "--without-mingle", "--loglevel", "INFO")
    web = (sys.executable, "manage.py", "serve", "--host", address.host, "--port", str(address.port))
    threaded = (*worker, "-P", "threads", "-c", str(WORKER_SLOTS), "-X", "cpu.v1,quarantine.v1")
    forked = (*worker, "-P", "prefork")
    threads = tuple(
        # All queues but those of the prefork workers: a graph that names a queue of its own is served too.
        Program(name, (*threaded, "-n", f"{name}@%h"))
        for name in (f"worker-{number}" for number in range(1, WORKERS + 1))
    )
    return (
        Program("web", web),
        *threads,
        Program("worker-cpu", (*forked, "-c", str(CPU_SLOTS), "-Q", "cpu.v1", "-n", "worker-cpu@%h")),
        Program("worker-quarantine", (*forked, "-c", "1", "-Q", "quarantine.v1", "-n", "worker-quarantine@%h")),
        Program("beat", (*celery, "beat", "--loglevel", "INFO")),
        Program("flower", (*celery, "flower", "--conf=workers/flowerconfig.py")),
    )


def migrate(environment: Mapping[str, str]) -> None:
    manage(environment, "migrate", "--verbosity", "0")


def check_config(environment: Mapping[str, str]) -> None:
    """Raises Misconfigured where no process could read the langgraph.json, which each would say in a log of its own."""
    manage(environment, "farm_graphs", "--file-only")


def set_up(environment: Mapping[str, str], folder: Path) -> Access:
    """The two demo tenants and the admin user, made at the first call. Their keys stay in secrets.json."""
    made: dict[str, Any] = json.loads(
        manage(environment, "farm_setup", "--json", "--secrets", str(folder / "secrets.json"))
    )
    keys = {tenant["slug"]: tenant["key"] for tenant in made["tenants"]}
    return Access(keys["demo"], keys["other"], made["admin"]["user"], made["admin"]["password"])


def write_access(folder: Path, address: Address, access: Access) -> None:
    """.farm/farm.env, for scripts: `set -a; . .farm/farm.env`."""
    lines = (
        f"AGENTFARM_URL={address.url}",
        f"AGENTFARM_API_KEY={access.key}",
        f"AGENTFARM_API_KEY_2={access.other_key}",
    )
    write_private(folder / "farm.env", "\n".join([*lines, ""]))


def read_access(folder: Path) -> dict[str, str]:
    lines = (folder / "farm.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line)


def manage(environment: Mapping[str, str], *command: str) -> str:
    """A command of Django's: what it printed. Raises Misconfigured with what it said when it fails."""
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=PROJECT,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Misconfigured(f"`manage.py {command[0]}` failed:\n" + "\n".join(said[-15:]))
    return done.stdout


def get_json(address: Address, path: str) -> dict[str, Any] | None:
    """The web's answer, or None while there is none."""
    connection = http.client.HTTPConnection(address.reached_at, address.port, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read()
        return json.loads(content) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()

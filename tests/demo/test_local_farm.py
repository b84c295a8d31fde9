"""The commands of agentfarm.local as a user types them, each in a folder of its own; nothing runs when it is over."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentfarm.local.farm import CPU_SLOTS, PROJECT, read_access
from agentfarm.local.postgres import Postgres
from agentfarm.local.processes import is_alive, wait_until
from agentfarm.local.state import State
from agentfarm.local.supervisor import read_supervisor
from agentfarm.local.valkey import Valkey

pytestmark = pytest.mark.slow

#: Servers of one's own are not what is tried here.
OWN = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "ANONYMOUS_TENANT", "AGENTFARM_ALLOWED_HOSTS")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agentfarm.local", *arguments]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OWN}


def local(*arguments: str, seconds: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=PROJECT,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    own = tmp_path / "farm"
    yield own
    done = local("reset", "--folder", str(own))
    assert done.returncode == 0, done.stderr
    assert not own.exists()
    assert running_from(own) == []


def running_from(folder: Path) -> list[str]:
    """Processes whose command or environment names the folder: servers and what they started."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found


@pytest.mark.timeout(300)
def test_the_demo_tells_its_story_and_leaves_nothing_running(folder: Path) -> None:
    done = local("demo", "--folder", str(folder), seconds=280)

    assert done.returncode == 0, done.stderr + done.stdout
    for sentence in (
        "The Gettysburg Address has 271 words.",
        "stopped for a human",
        "booked, 1299.00",
        "kill -9",
        "taken over from worker-",
        "the run ended right",
        "tenant other asks for demo's thread: 404",
        "all has ended",
    ):
        assert sentence in done.stdout
    assert running_from(folder) == []
    assert secrets_in(folder / "logs", folder) == []


def secrets_in(logs: Path, folder: Path) -> list[str]:
    """Logs in which a key or a password of this farm stands."""
    state = json.loads((folder / "state.json").read_text())
    secret = [*state["secrets"].values(), *state["postgres"]["passwords"].values(), state["valkey"]["password"]]
    secret += [value for name, value in read_access(folder).items() if "KEY" in name]
    return [log.name for log in logs.iterdir() if any(word in log.read_text(errors="replace") for word in secret)]


@pytest.mark.timeout(300)
def test_a_farm_runs_until_it_is_killed_and_then_goes_on_with_its_data(folder: Path) -> None:
    first = start(folder)
    facts = read_supervisor(folder)
    children = [psutil.Process(pid) for pid in facts["children"].values()]
    family = [*children, *(prefork for child in children for prefork in child.children(recursive=True))]
    assert len(family) >= len(children) + CPU_SLOTS
    assert local("status", "--folder", str(folder)).returncode == 0
    again = local("run", "--folder", str(folder))
    assert again.returncode == 2
    assert "runs already" in again.stderr
    access = read_access(folder)
    assert access["AGENTFARM_URL"] == facts["url"]
    thread_id = post(access, "/threads", {})["thread_id"]
    kill_servers(folder)
    assert wait_until(lambda: local("status", "--folder", str(folder)).returncode == 0, seconds=60)
    assert get(access, f"/threads/{thread_id}")["thread_id"] == thread_id

    first.send_signal(signal.SIGKILL)
    first.wait()

    # Web, workers with prefork's children, beat and Flower; the servers stay, which hold the data.
    assert wait_until(lambda: not any(is_alive(process.pid) for process in family), seconds=20)
    # On every address: the printed URL is one that can be asked, and other machines' names for this one are answered.
    second = start(folder, "--host", "0.0.0.0")
    assert read_access(folder)["AGENTFARM_URL"].startswith("http://127.0.0.1:")
    assert status_of(read_access(folder)["AGENTFARM_URL"] + "/ok", host=socket.gethostname()) == 200
    assert status_of(read_access(folder)["AGENTFARM_URL"] + "/ok", host="elsewhere.example") == 400
    assert get(read_access(folder), f"/threads/{thread_id}")["thread_id"] == thread_id
    assert read_access(folder)["AGENTFARM_API_KEY"] == access["AGENTFARM_API_KEY"]

    stopped = local("stop", "--folder", str(folder))

    assert stopped.returncode == 0, stopped.stderr
    assert second.wait(30) == 0
    assert running_from(folder) == []
    assert local("status", "--folder", str(folder)).returncode == 1
    down = local("env", "--folder", str(folder))
    assert "export DATABASE_URL=" in down.stdout
    assert "PostgreSQL and Valkey do not answer" in down.stderr


def kill_servers(folder: Path) -> None:
    """As something that happens to a machine: nobody asked them to end."""
    state = State(folder)
    for server in (Postgres(state), Valkey(state)):
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        command("run", "--folder", str(folder), "--any-port", "--quiet", *options), cwd=PROJECT, env=environment()
    )

    def ready() -> bool:
        assert process.poll() is None, "the farm ended before it was ready"
        noted = read_supervisor(folder)
        return noted.get("pid") == process.pid and bool(noted.get("ready"))

    assert wait_until(ready, seconds=120)
    return process


def post(access: dict[str, str], path: str, body: object) -> dict[str, str]:
    return call(access, path, json.dumps(body).encode())


def get(access: dict[str, str], path: str) -> dict[str, str]:
    return call(access, path, None)


def call(access: dict[str, str], path: str, body: bytes | None) -> dict[str, str]:
    headers = {"x-api-key": access["AGENTFARM_API_KEY"], "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(access["AGENTFARM_URL"] + path, body, headers)) as answer:
        found: dict[str, str] = json.load(answer)
        return found


def status_of(url: str, *, host: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host})) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_port_that_another_program_has_is_named_with_the_way_out(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        done = local("run", "--folder", str(folder), "--port", str(port))

    assert done.returncode == 2
    assert f"Port {port} is taken" in done.stderr
    assert f"PORT={port + 1}" in done.stderr


def test_a_config_that_does_not_exist_is_named(folder: Path) -> None:
    done = local("run", "--folder", str(folder), "--any-port", "--config", "nowhere/langgraph.json")

    assert done.returncode == 2
    assert "nowhere/langgraph.json does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_open_door_to_everybody_is_refused_before_anything_starts(folder: Path) -> None:
    done = local("run", "--folder", str(folder), "--any-port", "--host", "0.0.0.0", ANONYMOUS_TENANT="demo")

    assert done.returncode == 2
    assert "ANONYMOUS_TENANT='demo' lets requests without a key in" in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.exists()


def test_a_tenant_that_is_not_there_is_nobodys_door(folder: Path) -> None:
    done = local("run", "--folder", str(folder), "--any-port", ANONYMOUS_TENANT="nobody")

    assert done.returncode == 2
    assert "ANONYMOUS_TENANT='nobody' is not a tenant of this farm" in done.stderr
    assert "are running" not in done.stdout
    reset = local("reset", "--folder", str(folder))
    assert f"deleted the farm's data in {folder}" in reset.stdout
    assert f"nothing to delete: there is no {folder}" in local("reset", "--folder", str(folder)).stdout


def test_servers_alone_come_up_for_a_shell(folder: Path) -> None:
    done = local("up", "--folder", str(folder))

    assert done.returncode == 0, done.stderr
    names = {line.split()[1].split("=")[0] for line in done.stdout.splitlines() if line.startswith("export ")}
    assert {"DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "CELERY_BROKER_URL", "AGENTFARM_SECRET_KEY"} <= names

"""The supervisor keeps what it was given running, ends all of it, and takes it along when it is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentfarm.errors import Misconfigured
from agentfarm.local import supervisor as module
from agentfarm.local.farm import Program
from agentfarm.local.processes import is_alive, wait_gone, wait_until
from agentfarm.local.supervisor import Supervisor, only_one, read_supervisor

#: Says that it runs, and waits to be ended.
LIVES = "import signal, sys; print('lives', flush=True); signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {LIVES}"
DIES = "import sys; sys.exit('cannot')"
#: A child of its own, as prefork has; its pid is in the log.
PARENT = f"""
import subprocess, sys
print("child", subprocess.Popen([sys.executable, "-c", {LIVES!r}]).pid, flush=True)
{LIVES}
"""

Make = Callable[..., Supervisor]


def python(name: str, script: str) -> Program:
    return Program(name, (sys.executable, "-c", script))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, said: list[str]) -> Iterator[Make]:
    made: list[Supervisor] = []

    def build(*programs: Program) -> Supervisor:
        supervisor = Supervisor(programs, dict(os.environ), tmp_path, tmp_path, say=said.append)
        made.append(supervisor)
        supervisor.start()
        return supervisor

    yield build
    for supervisor in made:
        supervisor.stop()


def log(supervisor: Supervisor, name: str) -> str:
    return (supervisor.folder / "logs" / f"{name}.log").read_text()


def test_a_process_that_is_killed_is_started_again_and_the_log_says_so(make: Make, said: list[str]) -> None:
    supervisor = make(python("one", LIVES), python("two", LIVES))
    first = {child.program.name: child.pid for child in supervisor.children}
    assert supervisor.watch(lambda: "lives" in log(supervisor, "one"), seconds=20)

    os.kill(first["one"] or 0, signal.SIGKILL)

    assert supervisor.watch(lambda: log(supervisor, "one").count("lives") == 2, seconds=20)
    now = {child.program.name: child.pid for child in supervisor.children}
    assert now["one"] != first["one"]
    assert now["two"] == first["two"]
    assert "was killed by SIGKILL" in said[0]
    assert "started again" in said[1]
    assert read_supervisor(supervisor.folder)["children"] == now


def test_one_that_never_lives_is_given_up_with_its_last_words(make: Make, said: list[str]) -> None:
    supervisor = make(python("broken", DIES))

    assert supervisor.watch(lambda: supervisor.hopeless() is not None, seconds=30)

    assert "cannot" in supervisor.last_words(supervisor.children[0])
    assert [line for line in said if "ended with 1" in line]


def test_it_waits_longer_each_time_one_dies_soon() -> None:
    child = module.Child(python("one", DIES), Path("one.log"))
    child.started = float("inf")  # it began just now

    assert [child.rest() for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_stop_ends_all_also_the_one_that_does_not_listen(
    make: Make, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 1.0)
    monkeypatch.setattr(module, "TELL_SECONDS", 0.3)
    supervisor = make(python("good", LIVES), python("deaf", DEAF))
    assert supervisor.watch(
        lambda: "lives" in log(supervisor, "deaf") and "lives" in log(supervisor, "good"), seconds=20
    )
    pids = [child.pid for child in supervisor.children]

    supervisor.stop()

    assert not any(map(is_alive, pids))
    assert [line for line in said if line.startswith("deaf: ending for")]
    assert [line for line in said if "deaf does not end" in line]
    assert read_supervisor(supervisor.folder) == {}


def test_what_a_killed_process_leaves_of_its_group_is_ended(make: Make) -> None:
    supervisor = make(python("parent", PARENT))
    assert supervisor.watch(lambda: "lives" in log(supervisor, "parent"), seconds=20)
    grandchild = int(log(supervisor, "parent").split("child ")[1].split()[0])

    os.kill(supervisor.children[0].pid or 0, signal.SIGKILL)

    assert supervisor.watch(lambda: not is_alive(grandchild), seconds=20)


@pytest.mark.skipif(sys.platform != "linux", reason="the next start ends them where the kernel does not")
def test_its_children_die_with_it_also_by_kill_9(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
from agentfarm.local.farm import Program
from agentfarm.local.supervisor import Supervisor
folder = Path({str(tmp_path)!r})
supervisor = Supervisor([Program("one", (sys.executable, "-c", {LIVES!r}))], dict(os.environ), folder, folder)
supervisor.start()
supervisor.watch(lambda: False)
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    one = tmp_path / "logs" / "one.log"
    assert wait_until(lambda: one.exists() and "lives" in one.read_text(), seconds=30)
    child = read_supervisor(tmp_path)["children"]["one"]

    parent.kill()
    parent.wait()

    assert wait_gone(child, seconds=10)


def test_a_folder_has_one_supervisor(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(Misconfigured, match="runs already"), only_one(tmp_path):
        pass


def test_a_log_that_grew_large_is_put_aside(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 10)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "one.log").write_text("much of yesterday")

    supervisor = make(python("one", LIVES))

    assert supervisor.watch(lambda: "lives" in log(supervisor, "one"), seconds=20)
    assert "yesterday" not in log(supervisor, "one")
    assert (tmp_path / "logs" / "one.log.1").read_text() == "much of yesterday"

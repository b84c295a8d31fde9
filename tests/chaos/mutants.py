"""Farms that are broken on purpose, each of which must be noticed: `python -m tests.chaos.mutants`, or `make mutants`.

A mutant is a copy of this tree in which a guard is taken out of the source, and a command that must fail there for that
reason: a test that fails by its own assertion, or a storm in which the promise breaks that the guard keeps. A farm that
does not start, a test that does not run or a fault that never happened is no catch. Nor is a guard that is not there to
be taken out: a mutant that is no mutant proves nothing.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.farm import ROOT

#: What a copy is without: what is installed, what was run, what was never code.
NOT_COPIED = (".git", ".venv", ".farm", "__pycache__", ".*_cache", "benchmarks", "docs", "changes")

#: A command that says nothing for so long has hung, which is no catch.
LIMIT_SECONDS = 300.0

SEED = 1


class NoMutant(LookupError):
    """There is nothing to take out."""


@dataclass(frozen=True, slots=True)
class Swap:
    """In one file, a text that is there exactly so many times, and what is there instead."""

    file: str
    text: str
    instead: str = ""
    times: int = 1

    def apply(self, tree: Path) -> None:
        path = tree / self.file
        source = path.read_text(encoding="utf-8")
        if (found := source.count(self.text)) != self.times:
            raise NoMutant(f"{self.file} says {self.text!r} {found} times, not {self.times}: mend the mutant")
        path.write_text(source.replace(self.text, self.instead), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class FailingTest:
    """A test of another folder that must fail. shows: what its failure says."""

    name: str
    shows: str

    def command(self, slack: float) -> list[str]:  # a test has deadlines of its own
        return [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", self.name]

    def catch(self, said: str) -> str | None:
        failed = re.search(rf"^FAILED {re.escape(self.name)}", said, re.MULTILINE)
        return f"`{self.name}`" if failed and re.search(self.shows, said) else None


@dataclass(frozen=True, slots=True)
class Storm:
    """A short storm of these faults alone, in which this must be told as broken.

    breaks    promises, of which one must be
    """

    only: Sequence[str]
    breaks: Sequence[str]
    seconds: float = 20.0
    patience: float = 20.0
    options: Sequence[str] = ()

    def command(self, slack: float) -> list[str]:
        kinds = [word for kind in self.only for word in ("--only", kind)]
        times = [
            "--seconds",
            str(self.seconds * slack),  # as many faults, which are further apart
            "--patience",
            str(self.patience),
            "--every",
            "4",
            "--slack",
            str(slack),
        ]
        return [sys.executable, "-m", "tests.chaos", "--seed", str(SEED), *times, *kinds, *self.options]

    def catch(self, said: str) -> str | None:
        _, _, broken = said.partition("## Broken promises\n\n")
        for line in broken.splitlines():
            if any(line.startswith(f"- {promise}: ") for promise in self.breaks):
                return f"the storm ({', '.join(self.only)}): {line[2:130]}"
        return None


@dataclass(frozen=True, slots=True)
class Mutant:
    breaks: str
    swaps: Sequence[Swap]
    caught_by: FailingTest | Storm


#: The test's own assertion, and no other error.
_ASSERTS = r"(?m)^E +(AssertionError|assert )"

_HOT = "agentfarm/persistence/sql/hot.sql"
_DONE = "SET status = 'done', outcome = p_outcome, error = p_error_type, finished_at = clock_timestamp()\n"
_WHERE = "WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p_exec"
_FENCE = "AND e.fence = p_fence AND e.worker = p_worker AND e.status = 'leased'"
_ASYNC = "set_config('synchronous_commit', 'off', true);"


def _fence(instead: str) -> list[Swap]:
    """What is asked for instead of the fence, where a node alone in its superstep is saved and where a sibling is."""
    return [
        Swap(_HOT, f"{_DONE}{indent}{_WHERE}\n{indent}  {_FENCE}", f"{_DONE}{indent}{_WHERE}\n{indent}  {instead}")
        for indent in ("     ", "   ")
    ]


MUTANTS = {
    "no-fence": Mutant(
        "whoever executed a node may save it, also when another took it over",
        _fence(""),
        FailingTest(
            "tests/integration/persistence/executions/test_fences.py::test_a_zombie_saves_nothing",
            shows="DID NOT RAISE",
        ),
    ),
    "lock-for-fence": Mutant(
        "whoever holds his session's lock may save, as if a lock told who is the holder",
        _fence("AND NOT pg_try_advisory_xact_lock_shared(p_worker)"),
        FailingTest(
            "tests/integration/persistence/executions/test_fences.py::test_a_zombie_saves_nothing",
            shows="DID NOT RAISE",
        ),
    ),
    "no-head": Mutant(
        "the head of a thread is moved from wherever it is",
        [Swap(_HOT, " AND h.head IS NOT DISTINCT FROM p_from;", ";")],
        FailingTest(
            "tests/integration/persistence/executions/test_fences.py"
            "::test_a_head_moved_by_somebody_else_ends_the_run_with_a_reason",
            shows=_ASSERTS,
        ),
    ),
    "no-line": Mutant(
        "what Redis commits is taken by its number alone, whatever it follows there",
        [Swap("agentfarm/persistence/sql/redis_tier.sql", " OR p_before IS DISTINCT FROM entry_id THEN", " THEN")],
        FailingTest(
            "tests/integration/persistence/executions/test_fences_in_redis.py"
            "::test_what_follows_a_commit_that_postgres_has_never_had_is_refused",
            shows=_ASSERTS,
        ),
    ),
    "no-token": Mutant(
        "whoever has ever held a lease in Redis may save, while somebody holds it",
        # Its epoch is no such guard: an execution that is leased in another epoch has another token, too.
        [
            Swap(
                "agentfarm/persistence/redis_tier/lua/_lib.lua",
                " or x[1] ~= 'l' or x[3] ~= H.tok then",
                " or x[1] ~= 'l' then",
            )
        ],
        FailingTest(
            "tests/integration/persistence/executions/test_fences_in_redis.py"
            "::test_a_lease_that_was_taken_again_is_another_lease",
            shows="DID NOT RAISE",
        ),
    ),
    "begun-twice": Mutant(
        "Redis remembers nothing of a run that is over, or was recalled",
        [Swap("agentfarm/persistence/redis_tier/lua/_lib.lua", "  redis.call('HSET', K, 'ep', epoch)\n", "")],
        FailingTest(
            "tests/integration/persistence/test_recalls.py::test_a_run_that_was_recalled_is_not_begun_again_in_redis",
            shows=_ASSERTS,
        ),
    ),
    "no-healer": Mutant(
        "beat runs, and nobody looks for what died or got lost",
        [
            Swap(
                "workers/schedule.py",
                "while not self._stopping.is_set():\n            soon",
                "while False:\n            soon",
            )
        ],
        Storm(["lose message"], breaks=["recovery"]),
    ),
    "no-losses": Mutant(
        "a worker that is gone is never taken for lost",
        [
            Swap(_HOT, "SELECT p_worker IS NULL OR pg_try", "SELECT p_worker IS NULL OR false AND pg_try"),
            Swap(
                _HOT,
                "OR NOT EXISTS (SELECT FROM farm.worker w WHERE w.worker = p_worker AND w.ended_at",
                "OR false AND NOT EXISTS (SELECT FROM farm.worker w WHERE w.worker = p_worker AND w.ended_at",
            ),
        ],
        FailingTest(
            "tests/integration/persistence/healing/test_attempts.py"
            "::test_the_sweep_takes_over_on_behalf_of_every_tenant",
            shows=_ASSERTS,
        ),
    ),
    "ack-early": Mutant(
        "a message is acknowledged before its node begins",
        [Swap("agentfarm/queueing/broker.py", '"task_acks_late": True', '"task_acks_late": False')],
        FailingTest(
            "tests/unit/queueing/test_broker.py::test_a_message_outlives_the_worker_that_has_it",
            shows="task_acks_late",
        ),
    ),
    "no-lock": Mutant(
        "of a dead worker only the lease is looked at, and not its lock",
        [
            Swap(_HOT, "OR pg_try_advisory_xact_lock_shared(p_worker)\n", "\n"),
            Swap(
                "agentfarm/persistence/sql/heal.sql",
                "WHERE w.ended_at IS NULL AND pg_try_advisory_xact_lock_shared(w.worker);",
                "WHERE false;",
            ),
        ],
        FailingTest(
            "tests/integration/persistence/test_leases.py::test_what_a_killed_process_held_is_taken_over_at_once",
            shows=_ASSERTS,
        ),
    ),
    "ack-early-no-lock": Mutant(
        "both: nobody has the message any more, and nobody sees at once that its worker is dead",
        [
            Swap("agentfarm/queueing/broker.py", '"task_acks_late": True', '"task_acks_late": False'),
            Swap(_HOT, "OR pg_try_advisory_xact_lock_shared(p_worker)\n", "\n"),
            Swap(
                "agentfarm/persistence/sql/heal.sql",
                "WHERE w.ended_at IS NULL AND pg_try_advisory_xact_lock_shared(w.worker);",
                "WHERE false;",
            ),
        ],
        Storm(["kill worker"], breaks=["recovery"], options=["--alone"]),
    ),
    "publish-first": Mutant(
        "what comes next is published before it is durable",
        [
            Swap(
                "agentfarm/flow/step.py",
                "        return _commit(farm, claimed, result, ahead)\n",
                "        dispatch(farm, [claimed.message])\n        return _commit(farm, claimed, result, ahead)\n",
            ),
        ],
        FailingTest(
            "tests/unit/flow/test_step.py"
            "::test_what_a_segment_said_is_in_its_stream_before_the_commit_and_what_comes_next_is_sent_after_it",
            shows="publish",
        ),
    ),
    "set-for-set-local": Mutant(
        "a connection keeps its tenant after the transaction",
        [Swap("agentfarm/persistence/database.py", "{tenant_id.hex}', true", "{tenant_id.hex}', false")],
        FailingTest(
            "tests/integration/persistence/test_database.py"
            "::test_a_transaction_knows_its_tenant_and_the_next_one_does_not",
            shows="is None",
        ),
    ),
    "set-in-claim": Mutant(
        "a connection keeps the tenant of its last claim",
        [
            Swap(
                _HOT,
                f"p_tenant::text, true), {_ASYNC}\n  UPDATE farm.node_execution",
                f"p_tenant::text, false), {_ASYNC}\n  UPDATE farm.node_execution",
            )
        ],
        FailingTest(
            "tests/isolation/test_database_walls.py::test_no_function_leaves_its_tenant_to_who_has_the_connection_next",
            shows="claim",
        ),
    ),
    "no-force": Mutant(
        "who owns a table sees all of it",
        [Swap("agentfarm/persistence/sql/walls.sql", "%I FORCE ROW LEVEL", "%I NO FORCE ROW LEVEL")],
        FailingTest(
            "tests/isolation/test_database_walls.py::test_the_owner_of_the_tables_sees_no_row_of_them",
            shows=_ASSERTS,
        ),
    ),
    "no-wall": Mutant(
        "the policy lets every row through",
        [
            Swap(
                "agentfarm/persistence/sql/walls.sql",
                "USING (tenant_id = farm.tenant()) WITH CHECK (tenant_id = farm.tenant())",
                "USING (true) WITH CHECK (true)",
            )
        ],
        FailingTest(
            "tests/isolation/test_database_walls.py::test_a_query_that_forgets_its_tenant_sees_one_tenant[run]",
            shows=_ASSERTS,
        ),
    ),
}


#: The control: what a farm with all its guards must pass, or a catch says nothing but that the machine is slow.
SOUND = "sound"
_CONTROL = Storm(["freeze worker", "kill worker", "lose message"], breaks=(), seconds=40.0, options=["--alone"])


# --------------------------------------------------------------------------- making and trying one


def apply(mutant: Mutant, tree: Path) -> None:
    """Raises NoMutant."""
    for swap in mutant.swaps:
        swap.apply(tree)


@contextmanager
def copied(names: Sequence[str] = NOT_COPIED) -> Iterator[Path]:
    """A copy of the tree with the same installed packages, in a short path: sockets have little room for theirs."""
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    try:
        tree = folder / "t"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*names), symlinks=True)
        (tree / ".venv").symlink_to((ROOT / ".venv").resolve())
        yield tree
    finally:
        shutil.rmtree(folder)


def attempt(mutant: Mutant, slack: float) -> str | None:
    """What caught it, or None. Prints what was said where nothing did."""
    with copied() as tree:
        apply(mutant, tree)
        code, said = _run(mutant.caught_by.command(slack), tree, LIMIT_SECONDS * slack)
    caught = mutant.caught_by.catch(said) if code == 1 else None
    if caught is None:
        print(f"exit code {code}\n{said[-4000:]}", file=sys.stderr)
    return caught


def is_sound(slack: float) -> bool:
    """Whether the farm as it is passes the control."""
    with copied() as tree:
        code, said = _run(_CONTROL.command(slack), tree, LIMIT_SECONDS * slack)
    if code:
        print(f"exit code {code}\n{said[-4000:]}", file=sys.stderr)
    return code == 0


def _run(command: Sequence[str], tree: Path, seconds: float) -> tuple[int, str]:
    environment: Mapping[str, str] = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, cwd=tree, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        try:
            said, _ = running.communicate(timeout=seconds)
        except BaseException as error:  # it ends its own servers before it goes
            running.send_signal(signal.SIGTERM if "tests.chaos" in command else signal.SIGINT)
            said, _ = running.communicate(timeout=120)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            said += f"\nit had not ended after {seconds:.0f} s"
    return running.returncode, said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], SOUND, *MUTANTS], help="all, if none is named")
    parser.add_argument("--slack", type=float, default=1.0, help="times slower than two idle cores")
    given = parser.parse_args()
    rows: list[str] = []
    survived: list[str] = []
    for name in given.names or (SOUND, *MUTANTS):
        began = time.monotonic()
        if name == SOUND:
            passed = is_sound(given.slack)
            seconds = time.monotonic() - began
            print(f"{name}: {'passes' if passed else 'FAILS'} in {seconds:.0f} s", flush=True)
            rows.append(
                f"| none | nothing | {'nobody, as it must be' if passed else 'FAILS by itself'} | {seconds:.0f} |"
            )
            survived += [] if passed else [name]
            continue
        caught = attempt(MUTANTS[name], given.slack)
        seconds = time.monotonic() - began
        print(f"{name}: {'caught' if caught else 'SURVIVED'} in {seconds:.0f} s", flush=True)
        rows.append(f"| {name} | {MUTANTS[name].breaks} | {caught or 'SURVIVED'} | {seconds:.0f} |")
        if caught is None:
            survived.append(name)
    print("\n".join(["", "| mutant | what is wrong | caught by | seconds |", "|---|---|---|---|", *rows]))
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

"""5: kill -9 of a worker in the middle of a node: seconds until another has begun the node again."""

from collections.abc import Sequence
from uuid import UUID

from benchmarks.driver import Driver
from benchmarks.processes import Child, wait_for
from benchmarks.rounds import Figures, Table, epoch_seconds
from benchmarks.watcher import Execution

NAP_SECONDS = 1.5
PATIENCE_SECONDS = 60.0


def measure_kills(driver: Driver, workers: Sequence[Child], *, kills: int) -> Table:
    """Each killed worker is started again, and the next one is killed when all are there."""
    rows: list[Figures] = []
    for number in range(kills):
        print(f"  kill {number + 1} of {kills}")
        rows.append({"seconds": kill_once(driver, workers)})
    notes = [
        "Median (min-max). From the signal to the second attempt's start, by Postgres' clock.",
        "Asked for: at most 3 s. The death is noticed by the lock that dies with the process, not by the lease (15 s).",
    ]
    return Table("5 kill -9 in the middle of a node", {f"node runs again, n={kills}": rows}, notes=notes)


def kill_once(driver: Driver, workers: Sequence[Child]) -> float:
    run_id = driver.start("one_nap", {"seconds": NAP_SECONDS})
    wait_for(lambda: _holder(driver, run_id) is not None, "a worker holds the node", within_seconds=PATIENCE_SECONDS)
    victim = _victim(driver, run_id, workers)
    killed_at = epoch_seconds()
    victim.kill()
    victim.start()
    wait_for(lambda: _nap(driver, run_id).attempts > 1, "the node runs again", within_seconds=PATIENCE_SECONDS)
    again = _nap(driver, run_id).started_at
    driver.wait([run_id])
    wait_for(
        lambda: driver.watcher.knows(victim.pid),
        f"{victim.name} is back",
        within_seconds=PATIENCE_SECONDS,
        children=[victim],
    )
    if again is None:
        raise RuntimeError("an execution of two attempts has no start")
    return again.timestamp() - killed_at


def _nap(driver: Driver, run_id: UUID) -> Execution:
    """The execution of the one node; before there is one, the run's start, which no worker holds yet."""
    executions = driver.watcher.executions([run_id])
    return next((each for each in executions if each.node == "nap"), executions[0])


def _holder(driver: Driver, run_id: UUID) -> int | None:
    nap = _nap(driver, run_id)
    return nap.worker if nap.node == "nap" and nap.status == "leased" else None


def _victim(driver: Driver, run_id: UUID, workers: Sequence[Child]) -> Child:
    """The child that holds the node. Only a process that we started is ever killed."""
    holder = _holder(driver, run_id)
    pid = driver.watcher.pid_of(holder) if holder is not None else None
    for worker in workers:
        if worker.pid == pid:
            return worker
    raise RuntimeError(f"the node is held by process {pid}, which is none of this benchmark's workers")

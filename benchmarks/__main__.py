"""`python -m benchmarks`: see README.md."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.farm import ROOT, BenchFarm
from benchmarks.rounds import Table, render

NAMES = ("throughput", "hop", "runs", "fanout", "kill", "parts", "engine", "once")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. runs: chains or runs of a round."""

    rounds: int
    seconds: float
    runs: int
    kills: int


QUICK = Effort(rounds=1, seconds=1.0, runs=3, kills=1)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    effort = QUICK if options.quick else Effort(options.rounds, options.seconds, options.runs, options.kills)
    folder = Path(options.folder or ROOT / ".farm" / "bench" / options.broker)
    print(f"starting a farm in {folder} …", flush=True)
    with BenchFarm(folder, broker=options.broker) as farm:
        # In the order of NAMES, whatever order they were named in: those that stop the workers come last.
        for name in [name for name in NAMES if name in (options.names or NAMES)]:
            print(f"{name} …", flush=True)
            for table in measure(name, farm, effort):
                print(f"\n{render(table)}", flush=True)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What the farm costs, beside named baselines of the same run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all of them if left out")
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--rounds", type=int, default=5, help="by turns with the baseline (5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a cell of throughput (5)")
    parser.add_argument("--runs", type=int, default=30, help="of a cell of hop, runs and parts (30)")
    parser.add_argument("--kills", type=int, default=5, help="of workers (5)")
    parser.add_argument("--quick", action="store_true", help="one short round of each: whether it runs, not how fast")
    parser.add_argument("--folder", help="where the farm's data and logs lie (.farm/bench/<broker>)")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return options


def measure(name: str, farm: BenchFarm, effort: Effort) -> Iterator[Table]:
    """One table, or several. Imports here: the modules read settings, which are known since the farm is up."""
    match name:
        case "throughput":
            from benchmarks.throughput import measure_throughput

            servers = farm.cpu_of()
            yield measure_throughput(
                farm.driver, farm.stock, servers=servers, rounds=effort.rounds, seconds=effort.seconds
            )
        case "hop":
            from benchmarks.bare import run_chain
            from benchmarks.hop import measure_hops

            farm.start_bare_workers()
            yield measure_hops(farm.driver, run_chain, rounds=effort.rounds, runs=effort.runs)
        case "runs":
            from benchmarks.runs import measure_chain

            yield measure_chain(farm.client, farm.stock_runner, rounds=effort.rounds, runs=effort.runs)
        case "fanout":
            from benchmarks.runs import measure_fanout

            yield measure_fanout(farm.client, farm.stock_runner, rounds=effort.rounds, runs=effort.runs)
        case "kill":
            from benchmarks.kill import measure_kills

            yield measure_kills(farm.driver, farm.workers, kills=effort.kills)
        case "parts":
            from benchmarks.parts import measure_parts

            farm.become_worker()
            yield measure_parts(farm.driver, rounds=effort.rounds, runs=effort.runs)
        case "engine":
            from benchmarks.engine import measure_engine

            farm.become_worker()
            yield from measure_engine(farm.driver, farm.stock_runner, rounds=effort.rounds, runs=effort.runs)
        case "once":
            from benchmarks.once import measure_once

            farm.become_worker()
            yield from measure_once(farm.driver, farm.stock_runner, rounds=effort.rounds, runs=effort.runs)


if __name__ == "__main__":
    raise SystemExit(main())

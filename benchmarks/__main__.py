"""`python -m benchmarks`: see README.md."""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.farm import ROOT, BenchFarm
from benchmarks.report import Report, describe_machine
from benchmarks.rounds import Table, render

NAMES = ("throughput", "hop", "runs", "fanout", "kill", "tokens", "chat", "growth", "parts", "tiers", "engine", "once")
BROKERS = ("redis", "rabbitmq")

#: A table, and what is drawn of it.
Measured = tuple[Table, Path | None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    runs     chains, runs or turns of a round
    tokens   of an answer
    history  messages of a long chat, checkpoints of a long thread
    """

    rounds: int
    seconds: float
    runs: int
    kills: int
    tokens: int = 200
    history: int = 10_000
    is_quick: bool = False


QUICK = Effort(rounds=1, seconds=1.0, runs=3, kills=1, tokens=20, history=200, is_quick=True)


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    options = parse(given)
    if options.broker == "both":
        return measure_both(given)
    effort = QUICK if options.quick else Effort(options.rounds, options.seconds, options.runs, options.kills)
    folder = Path(options.folder or ROOT / ".farm" / "bench" / options.broker)
    print(f"starting a farm in {folder} …", flush=True)
    with BenchFarm(folder, broker=options.broker, milliseconds_away=options.distance) as farm:
        command, machine = command_of(given), describe_machine(farm.environment["DATABASE_ADMIN_URL"])
        report = Report(Path(options.report or folder / "report"), options.broker, command, machine)
        # In the order of NAMES, whatever order they were named in: those that stop the workers come last.
        for name in [name for name in NAMES if name in (options.names or NAMES)]:
            print(f"{name} …", flush=True)
            for table, picture in measure(name, farm, effort, report):
                print(f"\n{render(table)}", flush=True)
                report.add(table, picture)
    print(f"all of it: {report.path}")
    return 0


def measure_both(given: Sequence[str]) -> int:
    """One after the other, each in a process of its own: settings are read once. The first failure is the answer."""
    codes = [
        subprocess.run(
            [sys.executable, "-m", "benchmarks", *given, "--broker", broker], check=False, cwd=ROOT
        ).returncode
        for broker in BROKERS
    ]
    return next((code for code in codes if code), 0)


def command_of(given: Sequence[str]) -> str:
    return " ".join(("python -m benchmarks", *given))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What the farm costs, beside named baselines of the same run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all of them if left out")
    parser.add_argument("--broker", choices=(*BROKERS, "both"), default="redis")
    parser.add_argument("--rounds", type=int, default=5, help="by turns with the baseline (5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a cell of throughput (5)")
    parser.add_argument("--runs", type=int, default=30, help="of a cell of hop, runs, tokens, chat, parts (30)")
    parser.add_argument("--kills", type=int, default=5, help="of workers (5)")
    parser.add_argument(
        "--distance", type=float, default=0.0, metavar="MS", help="to Postgres, each way, as to another zone (0)"
    )
    parser.add_argument("--quick", action="store_true", help="one short round of each: whether it runs, not how fast")
    parser.add_argument("--folder", help="where the farm's data and logs lie (.farm/bench/<broker>)")
    parser.add_argument("--report", help="where tables and pictures are written to (report/ in that folder)")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if options.broker == "both" and options.folder:
        parser.error("--folder is one farm's, and --broker both makes two; leave it out")
    return options


def measure(name: str, farm: BenchFarm, effort: Effort, report: Report) -> Iterator[Measured]:
    """One table, or several."""
    if name != "growth":
        for table in tables(name, farm, effort):
            yield table, None
        return
    from benchmarks.drawing import draw
    from benchmarks.growth import measure_growth

    seconds, runs = effort.seconds, effort.runs
    for axis, table in measure_growth(farm, rounds=effort.rounds, seconds=seconds, runs=runs, is_quick=effort.is_quick):
        picture = report.picture(axis.name)
        draw(axis, table, picture)
        yield table, picture


def tables(name: str, farm: BenchFarm, effort: Effort) -> Iterator[Table]:
    """Imports here: the modules read settings, which are known since the farm is up."""
    match name:
        case "throughput":
            from benchmarks.throughput import measure_throughput

            yield measure_throughput(
                farm.driver,
                farm.stock,
                servers=farm.cpu_of(),
                rounds=effort.rounds,
                seconds=effort.seconds,
                milliseconds_away=farm.milliseconds_away,
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
        case "tokens":
            from benchmarks.stock import prepare
            from benchmarks.tokens import measure_tokens

            url = farm.environment["DATABASE_OWNER_URL"]
            prepare(url)
            yield from measure_tokens(farm.client, url, rounds=effort.rounds, runs=effort.runs, tokens=effort.tokens)
        case "chat":
            from benchmarks.chat import measure_chat

            yield from measure_chat(
                farm.driver,
                farm.client,
                farm.stock_runner,
                rounds=effort.rounds,
                runs=effort.runs,
                history=effort.history,
            )
        case "parts":
            from benchmarks.parts import measure_parts

            farm.become_worker()
            yield measure_parts(farm.driver, rounds=effort.rounds, runs=effort.runs)
        case "tiers":
            from benchmarks.tiers import measure_tiers

            farm.become_worker()
            yield measure_tiers(
                farm.driver, rounds=effort.rounds, runs=effort.runs, milliseconds_away=farm.milliseconds_away
            )
        case "engine":
            from benchmarks.engine import measure_engine

            farm.become_worker()
            yield from measure_engine(
                farm.driver, farm.stock_runner, rounds=effort.rounds, runs=effort.runs, history=effort.history
            )
        case "once":
            from benchmarks.once import measure_once

            farm.become_worker()
            yield from measure_once(farm.driver, farm.stock_runner, rounds=effort.rounds, runs=effort.runs)


if __name__ == "__main__":
    raise SystemExit(main())

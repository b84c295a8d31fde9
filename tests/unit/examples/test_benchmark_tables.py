"""What benchmarks/ does with figures: they are compared within a round, printed as they were measured, and drawn."""

import os
import subprocess
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agentfarm.local.services import Broker
from benchmarks import __main__ as command
from benchmarks import cpu, growth, throughput, tokens
from benchmarks.__main__ import parse
from benchmarks.chat import said
from benchmarks.drawing import draw
from benchmarks.farm import BenchFarm
from benchmarks.graphs import chat_builder, delta_chat_builder, speaker_builder
from benchmarks.once import COLUMNS, FARM, OVER, STOCK, Meter, rows_of
from benchmarks.report import Report
from benchmarks.rounds import Cell, Figures, Ratio, Table, alternate, percentile, render, round_ratios


def test_cells_are_measured_by_turns_and_backwards_every_other_round() -> None:
    order: list[str] = []

    def cell(name: str) -> Cell:
        def measure() -> Figures:
            order.append(name)
            return {"x": 1.0}

        return Cell(name, measure)

    alternate([cell("a"), cell("b"), cell("c")], rounds=3, tell=lambda _: None)

    assert "".join(order) == "abccbaabc"


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # The machine was twice as slow in the second round: both cells were, so their ratio is not.
    rows = {"stock": [{"nodes/s": 1000.0}, {"nodes/s": 500.0}], "farm": [{"nodes/s": 600.0}, {"nodes/s": 300.0}]}

    assert round_ratios(rows, Ratio("nodes/s", "stock"), "farm") == [0.6, 0.6]


def test_a_table_shows_median_range_ratio_and_what_is_asked_for() -> None:
    rows: dict[str, list[Figures]] = {
        "stock": [{"ms": 10.0}, {"ms": 20.0}, {"ms": 30.0}],
        "farm": [{"ms": 20.0}, {"ms": 30.0}, {"ms": 90.0}],
    }

    lines = render(Table("A run", rows, [Ratio("ms", "stock", "at most 2")], ["A note."])).splitlines()

    assert lines[0] == "## A run"
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["", "ms", "ms ÷ stock"]
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["stock", "20.0 (10.0-30.0)", "1 (baseline)"]
    assert [cell.strip() for cell in lines[5].split("|")[1:-1]] == ["farm", "30.0 (20.0-90.0)", "2.00 (1.50-3.00)"]
    assert lines[-2:] == ["* A note.", "* Asked for: at most 2."]


def test_throughput_of_redis_is_compared_with_the_farms_own_without_it_round_by_round() -> None:
    # The machine was twice as slow in the second round.
    rows: dict[str, list[Figures]] = {
        throughput.STOCK: [{"nodes/s": 1000.0}, {"nodes/s": 500.0}],
        throughput.FARM: [{"nodes/s": 500.0}, {"nodes/s": 250.0}],
        "farm, Redis": [{"nodes/s": 600.0}, {"nodes/s": 300.0}],
    }

    lines = render(Table("1 Node throughput", rows, throughput.ratios_of(0.0))).splitlines()

    told = [[cell.strip() for cell in line.split("|")[3:-1]] for line in lines if line.startswith("| ")]
    assert told[0] == ["nodes/s ÷ stock in process", "nodes/s ÷ farm, a Celery task a node"]
    assert told[2:] == [
        ["1 (baseline)", "2.00 (2.00-2.00)"],
        ["0.50 (0.50-0.50)", "1 (baseline)"],
        ["0.60 (0.60-0.60)", "1.20 (1.20-1.20)"],
    ]


@pytest.mark.parametrize(("milliseconds_away", "asked"), [(0.0, "at least 1.0 with Redis"), (2.0, "at least 3 with")])
def test_what_is_asked_of_redis_is_told_below_the_table(milliseconds_away: float, asked: str) -> None:
    rows: dict[str, list[Figures]] = {throughput.STOCK: [{"nodes/s": 1.0}], throughput.FARM: [{"nodes/s": 1.0}]}

    lines = render(Table("1 Node throughput", rows, throughput.ratios_of(milliseconds_away))).splitlines()

    assert [line for line in lines if line.startswith("* Asked for: of the farm's own") and asked in line]


@pytest.mark.parametrize(
    ("broker", "kinds"),
    [("redis", ["worker", "postgres", "broker"]), ("rabbitmq", ["worker", "postgres", "broker", "redis"])],
)
def test_every_kind_of_process_that_moves_a_run_has_its_cpu_told(
    broker: Broker, kinds: list[str], tmp_path: Path
) -> None:
    assert list(BenchFarm(tmp_path, broker=broker).cpu_of()) == kinds


@pytest.mark.parametrize(
    ("count", "share", "value"),
    [
        (100, 0.0, 1),
        (100, 0.5, 50),
        (100, 0.99, 99),
        (100, 1.0, 100),
        (2, 0.5, 1),
        (3, 0.5, 2),
        (30, 0.95, 29),
        (1, 0.99, 1),
    ],
)
def test_a_percentile_is_the_smallest_value_that_such_a_share_does_not_exceed(
    count: int, share: float, value: int
) -> None:
    assert percentile(range(count, 0, -1), share) == value


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


@pytest.mark.skipif(not cpu.is_known(), reason="only Linux tells")
def test_cpu_time_grows_with_work_and_is_nothing_for_a_process_that_is_gone() -> None:
    before = cpu.milliseconds([os.getpid()])

    grew = next(number for number in count() if cpu.milliseconds([os.getpid()]) > before or number > 100_000)

    assert grew <= 100_000
    assert cpu.milliseconds([2**22 + 1]) == 0
    assert cpu.family(os.getpid())[0] == os.getpid()


def test_a_benchmark_that_does_not_exist_is_refused_with_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["hops"])

    told = capsys.readouterr().err
    assert "no benchmark is called hops; there are throughput, hop, runs, fanout, kill, tokens, chat, growth" in told


def test_what_once_costs_over_stock_is_the_difference_within_a_round() -> None:
    def figures(cpu_ms: float, backend_ms: float, *calls: str) -> Figures:
        values = (cpu_ms, backend_ms, cpu_ms + backend_ms, 9.0)
        return {f"{call}: {column}": value for call in calls for column, value in zip(COLUMNS, values, strict=True)}

    stock = [figures(0.2, 0.3, "get_tuple", "put_writes", "put"), figures(0.4, 0.6, "get_tuple", "put_writes", "put")]
    farm = [figures(0.4, 0.4, "claim", "commit"), figures(0.8, 0.8, "claim", "commit")]

    rows = rows_of({"stock": stock, "farm": farm, "farm, cold": farm})

    assert [row["both ms"] for row in rows[STOCK]] == pytest.approx([1.0, 2.0])
    assert [row[OVER] for row in rows[STOCK]] == [0.0, 0.0]
    assert [row["both ms"] for row in rows[FARM]] == pytest.approx([1.6, 3.2])
    assert [row[OVER] for row in rows[FARM]] == pytest.approx([0.6, 1.2])


@pytest.mark.skipif(not cpu.is_known(), reason="only Linux tells")
def test_a_meter_tells_calls_apart_and_counts_a_call_inside_of_another_once() -> None:
    meter = Meter(os.getpid())  # any process whose CPU clock can be read stands in for a backend
    inner = meter.clocked("inner", lambda: sum(range(1000)))
    outer = meter.clocked("outer", inner)

    outer()
    figures = meter.figures(steps=1)

    assert "inner: CPU ms" not in figures
    assert figures["outer: CPU ms"] > 0
    assert figures["outer: both ms"] == pytest.approx(figures["outer: CPU ms"] + figures["outer: Postgres ms"])


# --------------------------------------------------------------------------- tokens, chats, growth


async def test_the_paced_model_says_as_many_tokens_as_it_is_asked_for_one_by_one() -> None:
    graph = speaker_builder().compile()

    chunks = graph.astream({"tokens": 7, "pace_seconds": 0.0}, stream_mode="messages")

    assert len([chunk async for chunk, _ in chunks if chunk.content]) == 7  # type: ignore[union-attr]  # messages


def test_an_answer_that_lacks_a_token_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="2 pieces of an answer came, not 3 times"):
        tokens._heard([0.1, 0.2], 0.3, {"tokens": 3})


def test_the_first_token_is_told_without_the_models_own_time() -> None:
    heard = [tokens.Heard(first=0.030, last=2.0, end=2.004)] * 3

    told = tokens.figures(heard, pace=0.010)

    assert told == pytest.approx({"first, p50": 20.0, "first, p95": 20.0, "all, p50": 2000.0, "end, p50": 4.0})


@pytest.mark.parametrize("builder", [chat_builder, delta_chat_builder])
def test_a_chat_is_as_long_as_it_is_said_to_be(builder: Any) -> None:
    assert len(builder().compile().invoke(said(10))["messages"]) == 10


def test_growth_is_what_a_node_costs_over_the_first_point_of_its_round() -> None:
    rows = {"1 kB": [{growth.FARM: 2.0}, {growth.FARM: 4.0}], "10 kB": [{growth.FARM: 3.0}, {growth.FARM: 6.0}]}

    told = growth.with_first(rows)

    assert [row[growth.FIRST] for row in told["1 kB"]] == [1.0, 1.0]
    assert [row[growth.FIRST] for row in told["10 kB"]] == [1.5, 1.5]


@pytest.mark.parametrize("axis", [growth.STATE, growth.WORKERS], ids=lambda axis: axis.name)
def test_what_was_measured_is_written_with_its_machine_and_drawn(axis: growth.Axis, tmp_path: Path) -> None:
    rows: dict[str, list[Figures]] = {
        growth._row(axis, value): [{growth.STOCK: 1.0, growth.FARM: 2.0}] for value in axis.values
    }
    table, report = Table("11 Growth", rows), Report(tmp_path / "new", "redis", "make bench", ["a machine"])

    picture = report.picture(axis.name)
    draw(axis, table, picture)
    report.add(table, picture)

    page = report.path.read_text("utf-8")
    assert page.startswith("# Benchmarks over redis\n\n`make bench`\n\n* a machine\n")
    assert "## 11 Growth\n\n|  " in page
    assert f"![11 Growth]({picture.name})" in page
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_both_brokers_are_measured_in_a_process_each_and_a_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(command: list[str], **_: Any) -> "subprocess.CompletedProcess[bytes]":
        asked.append(command[1:])
        return subprocess.CompletedProcess(command, 3 if command[-1] == "redis" else 0)

    monkeypatch.setattr(command.subprocess, "run", run)

    assert command.main(["hop", "--broker", "both"]) == 3
    assert asked == [
        ["-m", "benchmarks", "hop", "--broker", "both", "--broker", broker] for broker in ("redis", "rabbitmq")
    ]
    assert parse(asked[1][2:]).broker == "rabbitmq"

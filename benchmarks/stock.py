"""The baseline: stock LangGraph in process over its own PostgresSaver, on the farm's Postgres server.

Two processes of four threads, each thread with a connection and a saver of its own, a new thread id a run,
durability="sync": the arrangement that got most out of two cores. Its tables lie in a schema of their own.
"""

import multiprocessing
import queue
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, LiteralString

import psycopg
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import DictRow, dict_row

from benchmarks import cpu
from benchmarks.graphs import (
    chain_builder,
    chat_builder,
    delta_chat_builder,
    fanout_builder,
    flat_builder,
    talkative_builder,
)
from benchmarks.rounds import epoch_seconds

SCHEMA: LiteralString = "stock_baseline"
OPTIONS = f"-c search_path={SCHEMA}"
PROCESSES = 2
THREADS = 4

BUILDERS: dict[str, Callable[[], Any]] = {
    "chain10": chain_builder,
    "flat10": flat_builder,
    "talkative10": talkative_builder,
    "fanout": fanout_builder,
    "chat": chat_builder,
    "delta_chat": delta_chat_builder,
}
INPUTS: dict[str, Any] = {"chain10": {"steps": ["in"], "note": "x"}, "fanout": {"width": 100}}


@dataclass(frozen=True, slots=True)
class Ran:
    """runs: [(when it ended, how long it took)], seconds."""

    runs: list[tuple[float, float]]
    cpu_ms: float


def connect(url: str) -> psycopg.Connection[DictRow]:
    # As LangGraph's documentation says to: autocommit, prepared at first use.
    return psycopg.connect(url, autocommit=True, prepare_threshold=0, row_factory=dict_row, options=OPTIONS)


def prepare(owner_url: str) -> None:
    """The baseline's tables. The owner's connection: the farm's own role may create nothing."""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(f"create schema if not exists {SCHEMA}")
    with connect(owner_url) as connection:
        PostgresSaver(connection).setup()


class StockRunner:
    """The graphs over one connection, in one OS thread; or, without a url, over LangGraph's saver in memory."""

    def __init__(self, url: str | None) -> None:
        self.connection = connect(url) if url else None
        saver = PostgresSaver(self.connection) if self.connection else InMemorySaver()
        self.graphs: dict[str, Any] = {name: build().compile(checkpointer=saver) for name, build in BUILDERS.items()}

    def run(
        self,
        graph_id: str,
        run_input: Any = None,
        *,
        thread_id: str | None = None,
        stream_mode: Sequence[str] = ("updates",),
    ) -> None:
        """thread_id: None for a new thread."""
        given = INPUTS[graph_id] if run_input is None else run_input
        config = {"configurable": {"thread_id": thread_id or uuid.uuid4().hex}}
        for _ in self.graphs[graph_id].stream(given, config, stream_mode=list(stream_mode), durability="sync"):
            pass

    def close(self) -> None:
        if self.connection:
            self.connection.close()


class StockProcesses:
    """The processes, started once: what a cell measures is their work, not their imports."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, url), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)
        for pipe in self.pipes:
            pipe.recv()  # it has imported and connected

    def run_for(self, graph_id: str, seconds: float, run_input: Any = None) -> list[Ran]:
        for pipe in self.pipes:
            pipe.send((graph_id, seconds, run_input))
        return [pipe.recv() for pipe in self.pipes]

    def stop(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def _serve(pipe: Connection, url: str) -> None:
    jobs: queue.Queue[tuple[str, float, Any]] = queue.Queue()
    answers: queue.Queue[list[tuple[float, float]] | BaseException] = queue.Queue()
    runners = [StockRunner(url) for _ in range(THREADS)]
    for runner in runners:
        threading.Thread(target=_work, args=(runner, jobs, answers), daemon=True).start()
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        graph_id, seconds, run_input = order
        used, end = cpu.milliseconds([multiprocessing.current_process().pid or 0]), epoch_seconds() + seconds
        for _ in range(THREADS):
            jobs.put((graph_id, end, run_input))
        runs: list[tuple[float, float]] = []
        for _ in range(THREADS):
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            runs += answer
        pipe.send(Ran(runs, cpu.milliseconds([multiprocessing.current_process().pid or 0]) - used))


def _work(
    runner: StockRunner,
    jobs: "queue.Queue[tuple[str, float, Any]]",
    answers: "queue.Queue[list[tuple[float, float]] | BaseException]",
) -> None:
    while True:
        graph_id, end, run_input = jobs.get()
        runs = []
        try:
            while (began := epoch_seconds()) < end:
                runner.run(graph_id, run_input)
                ended = epoch_seconds()
                runs.append((ended, ended - began))
        except Exception as error:  # handed to the process's main thread, which raises it
            answers.put(error)
        else:
            answers.put(runs)

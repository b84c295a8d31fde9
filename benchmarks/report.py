"""The tables of one run as a page: what was measured, on which machine, by which command, with its pictures."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil
import psycopg

from agentfarm import clock
from benchmarks.rounds import Table, render

#: What a figure depends on, beside our own code.
LIBRARIES = ("langgraph", "langgraph-sdk", "langgraph-checkpoint-postgres", "celery", "kombu", "psycopg", "redis")


@dataclass
class Report:
    """folder: of the page and its pictures. command: as one would type it again."""

    folder: Path
    broker: str
    command: str
    machine: Sequence[str]
    parts: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / f"{self.broker}.md"

    def picture(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{self.broker}-{name}.png"

    def add(self, table: Table, picture: Path | None = None) -> None:
        """Written at once: a run that fails later has told what it measured."""
        shown = [f"![{table.title}]({picture.name})", ""] if picture else []
        self.parts.append("\n".join([render(table), *shown]))
        head = [
            f"# Benchmarks over {self.broker}",
            "",
            f"`{self.command}`",
            "",
            *(f"* {line}" for line in self.machine),
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join([*head, "", *self.parts]), "utf-8")


def describe_machine(database_url: str) -> list[str]:
    """The day, the processor, the memory, the system, and the versions of what was measured."""
    with psycopg.connect(database_url) as connection:
        postgres = connection.info.server_version
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return [
        f"{clock.now():%Y-%m-%d}",
        f"{processor()}, {psutil.cpu_count()} cores, {memory:.1f} GiB",
        f"{system}, PostgreSQL {postgres // 10000}.{postgres % 10000}",
        ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    ]


def processor() -> str:
    """Its name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

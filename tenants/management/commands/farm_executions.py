"""`farm_executions --run ID`: who executed which node of a run, when, and what became of workers that died over it."""

import json
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from agentfarm.errors import InvalidId
from agentfarm.ids import parse_uuid
from tenants.line import Execution, executions_of_run
from tenants.models import Run, Tenant


class Command(BaseCommand):
    help = (
        "The node executions of a run in their order: node, worker, attempts, workers that were lost, times. No state."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--run", required=True, help="the run's id")
        parser.add_argument("--json", action="store_true", help="print a JSON array")

    def handle(self, *_: object, **options: Any) -> None:
        executions = executions_of_run(_find_run(options["run"]))
        if options["json"]:
            self.stdout.write(json.dumps([execution.as_json() for execution in executions]))
        else:
            self.stdout.write(_table(executions))


def _find_run(text: str) -> Run:
    try:
        run_id: UUID = parse_uuid(text, what="--run")
    except InvalidId as error:
        raise CommandError(str(error)) from error
    # By way of the tenants: the index begins with them.
    run = Run.objects.filter(tenant_id__in=Tenant.objects.values("id"), run_id=run_id).first()
    if run is None:
        raise CommandError(f"There is no run {run_id}.")
    return run


def _table(executions: list[Execution]) -> str:
    if not executions:
        return "No node executions. (Those of finished runs are removed after a while.)"
    lines = [f"{'step':>4}  {'node':<24} {'status':<10} {'attempts':>8}  {'seconds':>8}  worker"]
    for one in executions:
        lost = "".join(f"  {lost}" for lost in one.lost_to)
        seconds = "" if one.seconds is None else f"{one.seconds:.3f}"
        step = "" if one.step is None else one.step
        lines.append(
            f"{step:>4}  {one.node:<24} {one.status:<10} {one.attempts:>8}  {seconds:>8}  {one.worker_name or ''}{lost}"
            f"{_waits(one)}"
        )
    return "\n".join(lines)


def _waits(one: Execution) -> str:
    if one.next_try is None:
        return ""
    after = f" after {one.error}" if one.error else ""
    return f"  waits for try {one.next_try}{after}, due {one.available_at:%Y-%m-%d %H:%M:%S} UTC"

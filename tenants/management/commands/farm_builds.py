"""`farm_builds`: what waits for the workers of which build. `farm_builds move OLD NEW` gives it to another build's."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentfarm.errors import AgentFarmError
from agentfarm.records import BuildUse
from agentfarm.wiring import farm

#: On the command line: of processes without AGENTFARM_BUILD.
NONE = "-"


class Command(BaseCommand):
    help = (
        "The builds that run side by side (AGENTFARM_BUILD): living workers, node executions that wait and that are "
        "leased, runs that wait for their thread. `move OLD NEW` gives what waits for OLD, whose workers are gone for "
        "good, to NEW. `-` is the build of processes without one."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a JSON array")
        actions = parser.add_subparsers(dest="action", title="actions")
        move = actions.add_parser("move", help="give what waits for one build to another")
        move.add_argument("gone", metavar="OLD")
        move.add_argument("to", metavar="NEW")

    def handle(self, *_: object, **options: Any) -> None:
        try:
            if options["action"] == "move":
                self._move(options["gone"], options["to"])
            elif options["json"]:
                fields = BuildUse.__dataclass_fields__
                told = [{name: getattr(use, name) for name in fields} for use in farm().healing.builds()]
                self.stdout.write(json.dumps(told))
            else:
                self.stdout.write(_table(farm().healing.builds()))
        except AgentFarmError as error:
            raise CommandError(str(error)) from error

    def _move(self, gone: str, to: str) -> None:
        uses = {use.build: use for use in farm().healing.builds()}
        old, new = ("" if build == NONE else build for build in (gone, to))
        if old == new:
            raise CommandError("OLD and NEW are the same build.")
        if old not in uses:
            raise CommandError(f"Nothing waits for build {gone}, and no worker of it lives.")
        if uses[old].workers:
            raise CommandError(
                f"{uses[old].workers} worker process(es) of build {gone} live and go on with what waits for it. "
                "End them first; what they hold is moved too once they are gone."
            )
        if new not in uses or not uses[new].workers:
            raise CommandError(f"No worker of build {to} lives, so what is moved would wait there. Start one first.")
        runs, executions = farm().healing.move_build(old, new)
        self.stdout.write(f"Moved {runs} run(s) and {executions} node execution(s) from {gone} to {to}.")


def _table(uses: Sequence[BuildUse]) -> str:
    if not uses:
        return "No worker lives, and nothing waits."
    lines = [f"{'build':<20}  {'workers':>7}  {'waiting':>7}  {'leased':>6}  {'pending':>7}  oldest"]
    lines += [
        f"{use.build or NONE:<20}  {use.workers:>7}  {use.waiting:>7}  {use.leased:>6}  {use.pending:>7}  "
        f"{use.oldest_seconds:.0f} s"
        + ("  nobody serves it" if not use.workers and (use.waiting or use.leased or use.pending) else "")
        for use in uses
    ]
    return "\n".join(lines)

"""`farm_dead list|retry|dismiss`: node executions that were buried, and their runs with them."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agentfarm.errors import AgentFarmError
from agentfarm.flow.admit import retry_run
from agentfarm.ids import parse_uuid
from agentfarm.tenancy import tenant_scope
from agentfarm.wiring import farm
from tenants.line import losses
from tenants.models import DeadLetter, Tenant, record

#: Most that one call lists.
MAX_LETTERS = 1000


class Command(BaseCommand):
    help = (
        "Nodes that took their workers with them until they were buried. `retry` begins the run again from its last "
        "checkpoint, `dismiss` takes it off the list."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", title="actions", required=True)
        listing = actions.add_parser("list", help="newest first")
        listing.add_argument("--graph")
        listing.add_argument("--node")
        listing.add_argument("--json", action="store_true", help="print a JSON array")
        chosen = [listing, actions.add_parser("retry"), actions.add_parser("dismiss")]
        for one in chosen:
            one.add_argument("tenant", help="its slug")
        for one in chosen[1:]:
            one.add_argument("run", help="the run's id")

    def handle(self, *_: object, **options: Any) -> None:
        tenant = Tenant.objects.filter(slug=options["tenant"]).first()
        if tenant is None:
            raise CommandError("There is no such tenant.")
        letters = DeadLetter.objects.filter(tenant_id=tenant.id)
        if options["action"] == "list":
            for name, wanted in (("graph_id", options["graph"]), ("node", options["node"])):
                letters = letters.filter(**{name: wanted}) if wanted else letters
            self._list(list(letters.order_by("-buried_at")[:MAX_LETTERS]), as_json=options["json"])
            return
        try:
            letter = letters.filter(run_id=parse_uuid(options["run"], what="run")).first()
            if letter is None:
                raise CommandError("Nothing is buried with this run, or somebody has seen to it.")
            self._act(tenant, letter, is_retry=options["action"] == "retry")
        except AgentFarmError as error:
            raise CommandError(str(error)) from error

    def _act(self, tenant: Tenant, letter: DeadLetter, *, is_retry: bool) -> None:
        """Recorded before it is done. Raises NotFound, Conflict, Unavailable."""
        record("farm_dead", "retried" if is_retry else "dismissed", "dead letter", letter.run_id, tenant_id=tenant.id)
        owner = tenant.in_flow()
        with tenant_scope(owner):
            if is_retry:
                new = retry_run(farm(), owner, letter.thread_id, letter.run_id)
                self.stdout.write(f"Run {new.run_id} goes on from the last checkpoint of {letter.run_id}.")
            else:
                farm().runs.dismiss(owner, letter.run_id)
                self.stdout.write(f"Dismissed {letter.run_id}.")

    def _list(self, letters: list[DeadLetter], *, as_json: bool) -> None:
        if as_json:
            names = ("run_id", "thread_id", "graph_id", "node", "attempts", "lost_to", "buried_at")
            self.stdout.write(
                json.dumps([{name: getattr(one, name) for name in names} for one in letters], default=str)
            )
            return
        for one in letters:
            story = "; ".join(str(loss) for loss in losses(one.lost_to))
            self.stdout.write(f"{one.run_id}  {one.buried_at:%F %T}  {one.graph_id}.{one.node}  {story}")
        if not letters:
            self.stdout.write("Nothing is buried.")

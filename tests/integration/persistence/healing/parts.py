"""How things die and get lost here, and what the database says of them."""

import json

from agentfarm.messages import ExecuteNode
from agentfarm.persistence.healing import PostgresHealing
from agentfarm.records import Buried, Sweep
from tests.integration.persistence.farmhands import (
    Hand,
)
from tests.integration.persistence.postgres import Home


def empty(queue: str) -> int:
    return 0


def declare_dead(home: Home, hand: Hand) -> None:
    home.query("UPDATE farm.worker SET ended_at = now() WHERE worker = %s RETURNING 1", hand.lease.worker_id())


def bury(healer: PostgresHealing, swept: Sweep) -> list[Buried]:
    return [buried for spent in swept.spent if (buried := healer.bury(spent)) is not None]


def start_waiting(healer: PostgresHealing) -> list[ExecuteNode]:
    return [started for thread in healer.waiting() for started in healer.start_waiting(*thread)]


def lose(home: Home, message: ExecuteNode, times: int, **entry: object) -> None:
    """As if so many workers had been lost over it, as `entry` says."""
    home.query(
        """UPDATE farm.node_execution
              SET lost_to = (SELECT jsonb_agg(jsonb_build_object('worker', 'w', 'attempt', n) || %s::jsonb)
                               FROM generate_series(1, %s) n)
            WHERE run_id = %s RETURNING 1""",
        json.dumps(entry),
        times,
        message.run_id,
    )


def waits_seconds(home: Home, message: ExecuteNode) -> float:
    """Since it was lost or given back, as Postgres has it: however long ago that is by now."""
    sql = """SELECT extract(epoch FROM available_at - (lost_to -> -1 ->> 'at')::timestamptz)::float8
               FROM farm.node_execution WHERE run_id = %s"""
    return float(home.query(sql, message.run_id)[0][0])


def queue_of(home: Home, message: ExecuteNode) -> str:
    return str(home.query("SELECT queue FROM farm.node_execution WHERE run_id = %s", message.run_id)[0][0])


def make_due(home: Home, message: ExecuteNode) -> None:
    home.query("UPDATE farm.node_execution SET available_at = now() WHERE run_id = %s RETURNING 1", message.run_id)

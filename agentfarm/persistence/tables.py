"""The tables of a home, as SQLAlchemy Core sees them. Django's migrations make them (sql/tables.sql).

A drift test (tests/contract/test_tables.py) compares the two; the reasons for each column stand in the SQL.
"""

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    desc,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "farm"

metadata = MetaData(schema=SCHEMA)

_NOW = text("clock_timestamp()")
_NOTHING = text("'{}'")


def _time(name: str, *, now: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=not now, server_default=_NOW if now else None)


thread = Table(
    "thread",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("thread_id", Uuid, primary_key=True),
    Column("status", Text, nullable=False, server_default="idle"),
    Column("graph_id", Text),
    Column("assistant_id", Uuid),
    Column("metadata", JSONB, nullable=False, server_default=_NOTHING),
    Column("config", JSONB, nullable=False, server_default=_NOTHING),
    Column("error", Text),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    _time("state_updated_at"),
    Column("ttl_minutes", Double),
    Column("ttl_strategy", Text),
    _time("expires_at"),
)
Index("thread_expires", thread.c.expires_at, postgresql_where=thread.c.expires_at.is_not(None))
Index("thread_created", thread.c.tenant_id, desc(thread.c.created_at), thread.c.thread_id)
Index("thread_updated", thread.c.tenant_id, desc(thread.c.updated_at), thread.c.thread_id)
Index(
    "thread_not_idle",
    *(thread.c.tenant_id, thread.c.status, desc(thread.c.created_at), thread.c.thread_id),
    postgresql_where=thread.c.status != text("'idle'"),
)

thread_head = Table(
    "thread_head",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("thread_id", Uuid, primary_key=True),
    Column("head", Uuid),
    Column("step", Integer, nullable=False, server_default=text("-2")),
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("redis_run", Uuid),
    Column("entry", BigInteger),
    Column("entry_id", Uuid),
)

run = Table(
    "run",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("thread_id", Uuid, nullable=False),
    Column("assistant_id", Uuid, nullable=False),
    Column("graph_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("strategy", Text, nullable=False, server_default="enqueue"),
    Column("spec", LargeBinary, nullable=False),
    Column("metadata", JSONB, nullable=False, server_default=_NOTHING),
    Column("fingerprint", Text, nullable=False, server_default=""),
    Column("build", Text, nullable=False, server_default=""),
    Column("tier", Text, nullable=False, server_default="postgres"),
    Column("inline_reason", Text),
    Column("forget_thread", Boolean, nullable=False, server_default=text("false")),
    Column("started_head", Uuid),
    Column("ended_head", Uuid),
    Column("root_run_id", Uuid),
    Column("error", JSONB),
    Column("warnings", JSONB),
    _time("created_at", now=True),
    _time("started_at"),
    _time("updated_at", now=True),
    _time("finished_at"),
    _time("announced_at"),
)
Index("run_active", run.c.tenant_id, run.c.thread_id, unique=True, postgresql_where=run.c.status == text("'running'"))
Index(
    "run_waiting",
    run.c.tenant_id,
    run.c.thread_id,
    run.c.run_id,
    postgresql_where=run.c.status == text("'pending'"),
)
Index("run_thread", run.c.tenant_id, run.c.thread_id, desc(run.c.created_at))
Index(
    "run_unannounced",
    run.c.finished_at,
    postgresql_where=run.c.finished_at.is_not(None) & run.c.announced_at.is_(None),
)
Index("run_forgettable", run.c.finished_at, postgresql_where=run.c.finished_at.is_not(None) & run.c.forget_thread)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("thread_id", Uuid, primary_key=True),
    Column("ns", Text, primary_key=True, server_default=""),
    Column("checkpoint_id", Uuid, primary_key=True),
    Column("parent_id", Uuid),
    Column("run_id", Uuid),
    Column("step", Integer, nullable=False),
    Column("refs", ARRAY(Text)),
    Column("body", LargeBinary, nullable=False),
    _time("created_at", now=True),
)

checkpoint_blob = Table(
    "checkpoint_blob",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("thread_id", Uuid, primary_key=True),
    Column("ns", Text, primary_key=True, server_default=""),
    Column("key", Text, primary_key=True),
    Column("blob", LargeBinary, nullable=False),
)

checkpoint_write = Table(
    "checkpoint_write",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("thread_id", Uuid, primary_key=True),
    Column("ns", Text, primary_key=True, server_default=""),
    Column("checkpoint_id", Uuid, primary_key=True),
    Column("execution_id", Uuid, primary_key=True),
    Column("task_id", Uuid, primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("run_id", Uuid),
    Column("fence", BigInteger, nullable=False),
    Column("task_path", Text, nullable=False, server_default=""),
    Column("body", LargeBinary, nullable=False),
    Column("replaced_body", LargeBinary),
    Column("replaced_run_id", Uuid),
)

node_execution = Table(
    "node_execution",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("thread_id", Uuid, nullable=False),
    Column("run_id", Uuid, primary_key=True),
    Column("checkpoint_id", Uuid, primary_key=True),
    Column("execution_id", Uuid, primary_key=True),
    Column("node", Text, nullable=False),
    Column("queue", Text, nullable=False, server_default=""),
    Column("status", Text, nullable=False, server_default="ready"),
    Column("outcome", Text),
    Column("alone", Boolean, nullable=False, server_default=text("true")),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("worker", BigInteger),
    _time("available_at", now=True),
    _time("published_at"),
    Column("publishes", SmallInteger, nullable=False, server_default=text("1")),
    _time("started_at"),
    _time("finished_at"),
    Column("spec", LargeBinary, nullable=False),
    Column("error", Text),
    Column("lost_to", JSONB),
    _time("created_at", now=True),
)

superstep = Table(
    "superstep",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("checkpoint_id", Uuid, primary_key=True),
    Column("width", Integer, nullable=False),
    Column("taken", Boolean, nullable=False, server_default=text("false")),
    Column("wave", Boolean, nullable=False, server_default=text("false")),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("given_back", Integer, nullable=False, server_default=text("0")),
    Column("worker", BigInteger),
    _time("published_at"),
)

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("thread_id", Uuid, nullable=False),
    Column("checkpoint_id", Uuid, nullable=False),
    Column("execution_id", Uuid, nullable=False),
    Column("graph_id", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lost_to", JSONB),
    _time("buried_at", now=True),
)
Index("dead_letter_buried", dead_letter.c.tenant_id, dead_letter.c.buried_at.desc())

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("name", Text(collation="C"), primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("run_id", Uuid, nullable=False),
    _time("created_at", now=True),
)
Index("idempotency_key_created", idempotency_key.c.created_at)

graph_build = Table(
    "graph_build",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("graph_id", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("manifest", JSONB, nullable=False),
    _time("first_seen_at", now=True),
)

_C = Text(collation="C")

store_item = Table(
    "store_item",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("namespace", _C, primary_key=True),
    Column("key", _C, primary_key=True),
    Column("value", JSONB, nullable=False),
    Column("value_bytes", Integer, nullable=False),
    Column("ttl_minutes", Double),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    _time("expires_at"),
)
Index("store_item_expires", store_item.c.expires_at, postgresql_where=store_item.c.expires_at.is_not(None))

store_vector = Table(
    "store_vector",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("namespace", _C, primary_key=True),
    Column("key", _C, primary_key=True),
    Column("field", Text, primary_key=True),
    Column("vector", ARRAY(REAL), nullable=False),
)

worker = Table(
    "worker",
    metadata,
    Column("worker", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("build", Text, nullable=False, server_default=""),
    Column("queues", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("lost", Integer, nullable=False, server_default=text("0")),
    _time("beat_at", now=True),
    _time("started_at", now=True),
    _time("ended_at"),
)

#: Tables that hold tenants' data: row-level security is forced on each.
TENANT_TABLES = tuple(table for table in metadata.sorted_tables if "tenant_id" in table.c)

-- The tables of a home, below schema `farm`. Run once by a Django migration, as farm_owner.
-- tenant_id comes first in every key; row-level security is forced on every table that has one (walls.sql).
-- No foreign keys between hot tables: each would cost every checkpoint a lookup; `farm.forget_thread` removes a thread whole,
-- and tests/integration proves that it leaves nothing.
CREATE SCHEMA IF NOT EXISTS farm;

-- STABLE, never IMMUTABLE: a folded constant would answer with the last tenant. nullif: after a SET LOCAL the setting is '', not NULL.
CREATE OR REPLACE FUNCTION farm.tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT nullif(current_setting('farm.tenant', true), '')::uuid $$;

CREATE TABLE farm.thread (
  tenant_id        uuid NOT NULL,
  thread_id        uuid NOT NULL,
  status           text NOT NULL DEFAULT 'idle' CHECK (status IN ('idle', 'busy', 'interrupted', 'error')),
  graph_id         text,
  assistant_id     uuid,
  metadata         jsonb NOT NULL DEFAULT '{}',
  config           jsonb NOT NULL DEFAULT '{}',
  error            text,
  created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  state_updated_at timestamptz,
  ttl_minutes      double precision CHECK (ttl_minutes > 0),  -- how long it is kept after its last use; NULL: for ever
  ttl_strategy     text CHECK (ttl_strategy IN ('delete', 'keep_latest')),
  expires_at       timestamptz,                    -- not before this. Not moved by use, which would cost each run an index: who finds it due looks at updated_at
  PRIMARY KEY (tenant_id, thread_id)) WITH (fillfactor = 80);
CREATE INDEX thread_expires ON farm.thread (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX thread_created ON farm.thread (tenant_id, created_at DESC, thread_id);
CREATE INDEX thread_updated ON farm.thread (tenant_id, updated_at DESC, thread_id);
-- Who waits for a human, who failed: few among many. Idle ones are most, and found in the order of thread_created. None for metadata:
-- jsonb's @> is not leakproof, so under row-level security no index may serve it (PostgreSQL 15 to 18).
CREATE INDEX thread_not_idle ON farm.thread (tenant_id, status, created_at DESC, thread_id) WHERE status <> 'idle';

-- The head moves at every superstep; metadata and the like do not: two tables, so that the hot row is narrow.
CREATE TABLE farm.thread_head (
  tenant_id uuid NOT NULL,
  thread_id uuid NOT NULL,
  head      uuid,                                  -- the checkpoint from which the thread goes on; moved by compare-and-swap only
  step      int NOT NULL DEFAULT -2,
  epoch     bigint NOT NULL DEFAULT 0,             -- whose entries from Redis count; grows when a run begins there, and when it is recalled
  redis_run uuid,                                  -- the run that is moved by Redis; NULL: none is
  entry     bigint,                                -- number and id of the last entry of that run that arrived
  entry_id  uuid,
  PRIMARY KEY (tenant_id, thread_id)) WITH (fillfactor = 50);

CREATE TABLE farm.run (
  tenant_id     uuid NOT NULL,
  run_id        uuid NOT NULL,
  thread_id     uuid NOT NULL,
  assistant_id  uuid NOT NULL,
  graph_id      text NOT NULL,
  status        text NOT NULL CHECK (status IN ('pending', 'running', 'success', 'error', 'interrupted', 'timeout')),
  strategy      text NOT NULL DEFAULT 'enqueue' CHECK (strategy IN ('reject', 'enqueue', 'interrupt', 'rollback')),
  spec          bytea NOT NULL,                    -- input, config, kwargs, serialised: immutable, so a worker caches it by run id
  metadata      jsonb NOT NULL DEFAULT '{}',
  fingerprint   text NOT NULL DEFAULT '',          -- of the graph that it was asked for; '' where it is not known
  build         text NOT NULL DEFAULT '',          -- whose workers execute it (AGENTFARM_BUILD); '': of none
  tier          text NOT NULL DEFAULT 'postgres' CHECK (tier IN ('postgres', 'redis')),  -- what moves it while it is under way
  inline_reason text,                              -- why one worker executes the whole run, where it cannot be cut
  forget_thread boolean NOT NULL DEFAULT false,    -- stateless: the thread goes with the run
  started_head  uuid,                              -- the thread's head when the run began: where a rollback returns to
  ended_head    uuid,                              -- the thread's head when the run ended: where its answer is read, since the next run moves the head on
  root_run_id   uuid,                              -- callbacks' id of the whole graph
  error         jsonb,                             -- {error: type, message, node, attempts}
  warnings      jsonb,                             -- [[where, type]]: values passed on as plain data, since the graph asked for it
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at    timestamptz,
  updated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at   timestamptz,
  announced_at  timestamptz,                       -- its end is in the run's stream
  PRIMARY KEY (tenant_id, run_id)) WITH (fillfactor = 70);
CREATE UNIQUE INDEX run_active ON farm.run (tenant_id, thread_id) WHERE status = 'running';     -- one at a time a thread
CREATE INDEX run_waiting ON farm.run (tenant_id, thread_id, run_id) WHERE status = 'pending';
CREATE INDEX run_thread ON farm.run (tenant_id, thread_id, created_at DESC);
CREATE INDEX run_unannounced ON farm.run (finished_at) WHERE finished_at IS NOT NULL AND announced_at IS NULL;
CREATE INDEX run_forgettable ON farm.run (finished_at) WHERE finished_at IS NOT NULL AND forget_thread;

CREATE TABLE farm.checkpoint (
  tenant_id     uuid NOT NULL,
  thread_id     uuid NOT NULL,
  ns            text NOT NULL DEFAULT '',          -- checkpoint_ns: '' is the graph itself, else a subgraph
  checkpoint_id uuid NOT NULL,
  parent_id     uuid,
  run_id        uuid,
  step          int NOT NULL,
  refs          text[],                            -- keys of the blobs it refers to, in the order in which the body lists them
  body          bytea NOT NULL,                    -- msgpack: checkpoint, metadata, small values
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, thread_id, ns, checkpoint_id));

CREATE TABLE farm.checkpoint_blob (                -- a channel's version, or what it added to the one before; stored once however many checkpoints show it
  tenant_id uuid NOT NULL,
  thread_id uuid NOT NULL,
  ns        text NOT NULL DEFAULT '',
  key       text NOT NULL,                         -- channel:version, or channel:version@offset (pieces.py)
  blob      bytea NOT NULL,
  PRIMARY KEY (tenant_id, thread_id, ns, key));

CREATE TABLE farm.checkpoint_write (
  tenant_id     uuid NOT NULL,
  thread_id     uuid NOT NULL,
  ns            text NOT NULL DEFAULT '',
  checkpoint_id uuid NOT NULL,
  execution_id  uuid NOT NULL,                     -- whose work it is: a @task's result belongs to the node execution that called it. Zero: the run's own
  task_id       uuid NOT NULL,                     -- LangGraph's task
  idx           int NOT NULL,                      -- 0: all ordinary writes of the task, packed; below 0: control writes, a row each
  run_id        uuid,                              -- who saved it; NULL: outside of a run (update_state)
  fence         bigint NOT NULL,
  task_path     text NOT NULL DEFAULT '',
  body          bytea NOT NULL,
  replaced_body   bytea,                           -- what a run wrote over, and whose that was: an undo puts it back (admit.sql)
  replaced_run_id uuid,
  PRIMARY KEY (tenant_id, thread_id, ns, checkpoint_id, execution_id, task_id, idx));

-- Outbox, lease and history of work at once. The primary key and nothing else: claim and commit stay HOT; the healer finds
-- open executions by way of the active runs, which are few.
CREATE TABLE farm.node_execution (
  tenant_id     uuid NOT NULL,
  thread_id     uuid NOT NULL,
  run_id        uuid NOT NULL,
  checkpoint_id uuid NOT NULL,                     -- zero: the run's start
  execution_id  uuid NOT NULL,                     -- the run's id: its start
  node          text NOT NULL,
  queue         text NOT NULL DEFAULT '',          -- queue@build; '': the default one, of no build
  status        text NOT NULL DEFAULT 'ready' CHECK (status IN ('held', 'ready', 'leased', 'in_redis', 'done', 'dead', 'cancelled')),  -- in_redis: open, and Redis knows who has it
  outcome       text,                              -- done interrupt invalid error retry: how the last attempt of a node ended that was not alone
  alone         boolean NOT NULL DEFAULT true,
  fence         bigint NOT NULL DEFAULT 0,         -- grows with each claim
  attempts      int NOT NULL DEFAULT 0,            -- claims
  tries         int NOT NULL DEFAULT 0,            -- that had failed when its RetryPolicy asked for another, later
  worker        bigint,                            -- the holder's process
  available_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  published_at  timestamptz,
  publishes     smallint NOT NULL DEFAULT 1,       -- the healer waits twice as long before each further one; 0: in a wave, and has no message
  started_at    timestamptz,
  finished_at   timestamptz,
  spec          bytea NOT NULL,                    -- NodeCall, serialised
  error         text,                              -- the type of the error; its text is the tenant's, and is in run.error and thread.error
  lost_to       jsonb,                             -- [{worker, attempt, at, how, alone, from}] of holders that died or fell silent, or {…, given_back}. from: its queue, before the quarantine
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id, checkpoint_id, execution_id)) WITH (fillfactor = 50);

-- Of the supersteps wider than one. Whoever takes the row once all siblings are settled advances the superstep, under a lease and
-- a fence as a node has; the commit of the advance deletes it.
CREATE TABLE farm.superstep (
  tenant_id     uuid NOT NULL,
  run_id        uuid NOT NULL,
  checkpoint_id uuid NOT NULL,
  width         int NOT NULL,
  taken         boolean NOT NULL DEFAULT false,    -- an interrupt() got the answer without an id
  wave          boolean NOT NULL DEFAULT false,    -- whoever settles a sibling goes on with the next one; docs/decisions/0014
  fence         bigint NOT NULL DEFAULT 0,
  attempts      int NOT NULL DEFAULT 0,
  given_back    int NOT NULL DEFAULT 0,            -- of these, by workers that live
  worker        bigint,                            -- who advances it; NULL: nobody yet
  published_at  timestamptz,                       -- the healer asked for somebody
  PRIMARY KEY (tenant_id, run_id, checkpoint_id)) WITH (fillfactor = 50);

-- Node executions that were buried, each with the run that it ended, until somebody has seen to it: retried the run, or dismissed it.
CREATE TABLE farm.dead_letter (
  tenant_id     uuid NOT NULL,
  run_id        uuid NOT NULL,
  thread_id     uuid NOT NULL,
  checkpoint_id uuid NOT NULL,
  execution_id  uuid NOT NULL,                     -- zero: the advance of a superstep
  graph_id      text NOT NULL,
  node          text NOT NULL,
  attempts      int NOT NULL,
  lost_to       jsonb,                             -- as node_execution.lost_to
  buried_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id));
CREATE INDEX dead_letter_buried ON farm.dead_letter (tenant_id, buried_at DESC);

-- How a client named its request (Idempotency-Key): the same one sent again within a day is the same run.
CREATE TABLE farm.idempotency_key (
  tenant_id  uuid NOT NULL,
  name       text COLLATE "C" NOT NULL,
  digest     bytea NOT NULL,                       -- of what was asked for
  run_id     uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, name));
CREATE INDEX idempotency_key_created ON farm.idempotency_key (created_at);

-- What of a graph a thread depends on, by the graph's fingerprint: asked for when a thread goes on under another build. Of a tenant, since
-- a factory may make a graph of the tenant's own words.
CREATE TABLE farm.graph_build (
  tenant_id     uuid NOT NULL,
  graph_id      text NOT NULL,
  fingerprint   text NOT NULL,
  manifest      jsonb NOT NULL,                    -- nodes with their triggers, channels with their kinds (engine/continuation.py)
  first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, graph_id, fingerprint));

-- LangGraph's store: what a tenant's graphs and clients remember across threads (store.py, store.sql).
-- The namespace as text, its labels joined by dots, which no label holds: comparing text is leakproof, so that row-level security lets an
-- index serve it; comparing arrays is not. Collation "C" makes all below a prefix one range. Namespace, key and field are bounded (store_keys.py),
-- since an entry of a B-tree takes 2,704 bytes.
CREATE TABLE farm.store_item (
  tenant_id   uuid NOT NULL,
  namespace   text COLLATE "C" NOT NULL,
  key         text COLLATE "C" NOT NULL,
  value       jsonb NOT NULL,
  value_bytes int NOT NULL,                        -- of its JSON: what operators see of it
  ttl_minutes double precision,                    -- NULL: until it is deleted
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at  timestamptz,                         -- over, and seen by nobody, from then on; removed by the healer
  PRIMARY KEY (tenant_id, namespace, key));
CREATE INDEX store_item_expires ON farm.store_item (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE farm.store_vector (                   -- what an item is found by in a semantic search: one a text of it
  tenant_id uuid NOT NULL,
  namespace text COLLATE "C" NOT NULL,
  key       text COLLATE "C" NOT NULL,
  field     text NOT NULL,
  vector    real[] NOT NULL,                       -- of length 1, or all zeros
  PRIMARY KEY (tenant_id, namespace, key, field));
ALTER TABLE farm.store_vector ALTER COLUMN vector SET STORAGE EXTERNAL;  -- random numbers: compressing them costs and saves nothing

-- No tenant's data. A row a worker process (each prefork child): its lease is that the row is fresh; `worker` is also the key of
-- the session advisory lock that the process holds while it lives.
CREATE TABLE farm.worker (
  worker     bigint PRIMARY KEY,                   -- random: a process that lost its connection comes back under another
  name       text NOT NULL,                        -- celery's node name and pid, as Flower shows it
  host       text NOT NULL,
  pid        int NOT NULL,
  build      text NOT NULL DEFAULT '',
  queues     text[] NOT NULL DEFAULT '{}',         -- that it reads, as graphs name them
  lost       int NOT NULL DEFAULT 0,               -- executions that were lost with it
  beat_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at   timestamptz) WITH (fillfactor = 50);

-- Values of more than 2 kB are compressed, for which pglz takes three times as long as lz4; not every server was built with that.
DO $$
BEGIN
  IF (SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression') THEN
    ALTER TABLE farm.checkpoint_blob ALTER COLUMN blob SET COMPRESSION lz4;
    ALTER TABLE farm.checkpoint ALTER COLUMN body SET COMPRESSION lz4;
    ALTER TABLE farm.checkpoint_write ALTER COLUMN body SET COMPRESSION lz4, ALTER COLUMN replaced_body SET COMPRESSION lz4;
    ALTER TABLE farm.node_execution ALTER COLUMN spec SET COMPRESSION lz4;
    ALTER TABLE farm.run ALTER COLUMN spec SET COMPRESSION lz4;
    ALTER TABLE farm.store_item ALTER COLUMN value SET COMPRESSION lz4;
  END IF;
END $$;

-- The walls between tenants, and what each role may do. May be run again: after new tables, and after each change here.
--
--   farm_app    web and workers: one tenant a transaction, by row-level security; owns nothing
--   farm_ops    the healer: ids and times of every tenant, so that it can find what is stuck; no state, no metadata, no error texts.
--               What it finds is acted upon as farm_app, for the tenant
--   farm_admin  Django's admin: reads rows of every tenant, metadata and texts of errors with them, but no state (input, bodies, blobs)
--   the owner   migrations: FORCE and no policy here, so it sees no row. One policy elsewhere (tenants/sql/sizes.sql) shows it the
--               checkpoints of the one tenant that farm_admin asks its function about, which answers with their sizes

DO $$
DECLARE v_table text;
BEGIN
  -- Whatever has a tenant_id is walled: a new table cannot be forgotten here.
  FOR v_table IN SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
                  WHERE c.relnamespace = 'farm'::regnamespace AND c.relkind IN ('r', 'p') LOOP
    EXECUTE format('ALTER TABLE farm.%I ENABLE ROW LEVEL SECURITY', v_table);
    EXECUTE format('ALTER TABLE farm.%I FORCE ROW LEVEL SECURITY', v_table);
    EXECUTE format('DROP POLICY IF EXISTS wall ON farm.%I', v_table);
    EXECUTE format('CREATE POLICY wall ON farm.%I TO farm_app USING (tenant_id = farm.tenant()) WITH CHECK (tenant_id = farm.tenant())', v_table);
    EXECUTE format('DROP POLICY IF EXISTS admin ON farm.%I', v_table);
    EXECUTE format('CREATE POLICY admin ON farm.%I FOR SELECT TO farm_admin USING (true)', v_table);
  END LOOP;
  FOREACH v_table IN ARRAY ARRAY['thread', 'thread_head', 'run', 'node_execution', 'superstep', 'store_item', 'idempotency_key'] LOOP
    EXECUTE format('DROP POLICY IF EXISTS ops ON farm.%I', v_table);
    EXECUTE format('CREATE POLICY ops ON farm.%I TO farm_ops USING (true) WITH CHECK (true)', v_table);
  END LOOP;
END $$;

REVOKE ALL ON SCHEMA farm FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA farm FROM PUBLIC, farm_app, farm_ops, farm_admin;
GRANT USAGE ON SCHEMA farm TO farm_app, farm_ops, farm_admin;

GRANT SELECT, INSERT, UPDATE, DELETE ON
  farm.thread, farm.thread_head, farm.run, farm.checkpoint, farm.checkpoint_blob, farm.checkpoint_write, farm.node_execution, farm.superstep,
  farm.store_item, farm.store_vector, farm.graph_build, farm.idempotency_key, farm.dead_letter
  TO farm_app;
GRANT SELECT, INSERT, UPDATE ON farm.worker TO farm_app;

GRANT SELECT (tenant_id, thread_id, expires_at) ON farm.thread TO farm_ops;
GRANT SELECT (tenant_id, thread_id, head, epoch, redis_run, entry) ON farm.thread_head TO farm_ops;
GRANT SELECT (tenant_id, run_id, thread_id, graph_id, status, build, forget_thread, created_at, started_at, finished_at, announced_at),
      UPDATE (build) ON farm.run TO farm_ops;
GRANT SELECT (tenant_id, thread_id, run_id, checkpoint_id, execution_id, node, queue, status, outcome, alone, fence, attempts, worker,
              available_at, published_at, publishes, started_at, finished_at, lost_to, created_at),
      UPDATE (status, queue, fence, worker, available_at, published_at, publishes, lost_to) ON farm.node_execution TO farm_ops;
GRANT SELECT, UPDATE (fence, worker, published_at) ON farm.superstep TO farm_ops;
GRANT SELECT, UPDATE (ended_at, lost), DELETE ON farm.worker TO farm_ops;
GRANT SELECT (tenant_id, expires_at) ON farm.store_item TO farm_ops;
GRANT SELECT (created_at), DELETE ON farm.idempotency_key TO farm_ops;

GRANT SELECT ON farm.thread, farm.thread_head, farm.superstep, farm.worker, farm.graph_build, farm.dead_letter TO farm_admin;
GRANT SELECT (tenant_id, run_id, thread_id, assistant_id, graph_id, status, strategy, metadata, fingerprint, build, tier, inline_reason, forget_thread, started_head,
              ended_head, root_run_id, warnings, error, created_at, started_at, updated_at, finished_at, announced_at) ON farm.run TO farm_admin;
GRANT SELECT (tenant_id, thread_id, ns, checkpoint_id, parent_id, run_id, step, refs, created_at) ON farm.checkpoint TO farm_admin;
GRANT SELECT (tenant_id, thread_id, ns, key) ON farm.checkpoint_blob TO farm_admin;
GRANT SELECT (tenant_id, thread_id, ns, checkpoint_id, execution_id, task_id, idx, run_id, fence, task_path) ON farm.checkpoint_write TO farm_admin;
GRANT SELECT (tenant_id, thread_id, run_id, checkpoint_id, execution_id, node, queue, status, outcome, alone, fence, attempts, tries, worker,
              available_at, published_at, publishes, started_at, finished_at, error, lost_to, created_at) ON farm.node_execution TO farm_admin;
GRANT SELECT (tenant_id, namespace, key, value_bytes, ttl_minutes, created_at, updated_at, expires_at) ON farm.store_item TO farm_admin;
GRANT SELECT (tenant_id, namespace, key, field) ON farm.store_vector TO farm_admin;

-- Functions: none for everybody. Those of the healer begin with ops_, all others are for one tenant. They run with the rights of who
-- calls them (SECURITY INVOKER), so the walls above hold inside them.
DO $$
DECLARE v_function regprocedure; v_name text;
BEGIN
  FOR v_function, v_name IN SELECT p.oid::regprocedure, p.proname FROM pg_proc p WHERE p.pronamespace = 'farm'::regnamespace AND NOT p.prosecdef LOOP
    EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC, farm_app, farm_ops, farm_admin', v_function);
    IF v_name NOT LIKE 'ops\_%' THEN EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO farm_app', v_function); END IF;
    IF v_name LIKE 'ops\_%' OR v_name IN ('tenant', 'is_lost', 'how_lost', 'losses', 'deaths', 'is_spent', 'is_advance_spent', 'note_loss', 'at_build') THEN
      EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO farm_ops', v_function);
    END IF;
    IF v_name = 'tenant' THEN EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO farm_admin', v_function); END IF;
  END LOOP;
END $$;

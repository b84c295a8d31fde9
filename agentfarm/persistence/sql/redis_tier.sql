-- Runs that are moved by Redis (persistence/redis_tier/), as Postgres sees them. What Redis commits arrives here entry by entry, in order;
-- safety rests on the thread's row alone (thread_head): `epoch`, whose line of entries counts, and `entry`, `entry_id`, the last that arrived.
-- A Redis that lost its memory, or found an older one again, hands in entries that do not follow the last one, and they are refused.
--
-- Whatever goes wrong there ends in one way: the run is recalled. Its epoch moves on, so that nothing of its old line is taken any more, and
-- it goes on from its last entry as any other run does, moved by Postgres. May be run again: drops what it defines.
--
-- Lock order: the thread's row first, always; then as everywhere.
DO $$
DECLARE v_function regprocedure;
BEGIN
  FOR v_function IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'farm'::regnamespace
                       AND p.proname = ANY (ARRAY['apply_entries', 'recall', 'is_free']) LOOP
    EXECUTE format('DROP ROUTINE %s', v_function);
  END LOOP;
END $$;

-- Entries of one run, from p_first to p_last, become rows: all, or none.
--  p_before, p_last_id  the id of the entry before the first, and of the last: what makes a line of them
--  p_head               where the last of them leaves the thread; NULL: where it is
--  w_keep               of an ordinary write that is there already the first counts
--  x_…                  executions as the last entry leaves them: in_redis (given out), held, done. x_worker … of those that are done
--  s_…, s_gone          supersteps that were begun and are not over; that were, and are over
--  p_status             the run is over: success or interrupted
--  p_waits              for who has the thread
--  verdict              later: somebody has the thread | ok | known: entry is not before p_first, so that only what comes after it is to be handed in
--                       other: it is another line, or the epoch has moved on: nothing of it counts
CREATE FUNCTION farm.apply_entries(
  p_tenant uuid, p_thread uuid, p_run uuid, p_epoch bigint, p_first bigint, p_before uuid, p_last bigint, p_last_id uuid, p_head uuid,
  c_ns text[], c_id uuid[], c_parent uuid[], c_step int[], c_first int[], c_last int[], c_refs text[], c_body bytea[],
  b_ns text[], b_key text[], b_blob bytea[],
  w_ns text[], w_ckpt uuid[], w_owner uuid[], w_task uuid[], w_idx int[], w_path text[], w_body bytea[], w_keep boolean[],
  x_ckpt uuid[], x_exec uuid[], x_node text[], x_queue text[], x_spec bytea[], x_alone boolean[], x_status text[], x_outcome text[], x_error text[],
  x_worker bigint[], x_begun bigint[], x_over bigint[],
  s_ckpt uuid[], s_width int[], s_taken boolean[], s_gone uuid[],
  p_status text, p_root uuid, p_waits boolean,
  OUT verdict text, OUT entry bigint, OUT entry_id uuid, OUT forget boolean, OUT next_run uuid, OUT next_graph text, OUT next_queue text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  verdict := 'other';
  IF p_waits AND NOT farm.lock_thread(p_tenant, p_thread) THEN RETURN; END IF;
  IF NOT p_waits AND NOT farm.try_lock_thread(p_tenant, p_thread) THEN
    IF EXISTS (SELECT FROM farm.thread t WHERE t.tenant_id = p_tenant AND t.thread_id = p_thread) THEN verdict := 'later'; END IF;
    RETURN;
  END IF;
  SELECT h.entry, h.entry_id INTO entry, entry_id FROM farm.thread_head h
   WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread AND h.epoch = p_epoch AND h.redis_run = p_run;
  IF NOT FOUND THEN RETURN; END IF;
  IF p_first <= entry THEN verdict := 'known'; RETURN; END IF;
  IF p_first > entry + 1 OR p_before IS DISTINCT FROM entry_id THEN RETURN; END IF;
  verdict := 'ok'; entry := p_last; entry_id := p_last_id;
  IF c_id IS NOT NULL THEN
    IF EXISTS (SELECT FROM unnest(c_id, c_parent) u(i, p) WHERE u.i <= u.p) THEN
      RAISE EXCEPTION USING errcode = 'AF003', message = format('A new checkpoint of thread %s does not come after its parent.', p_thread);
    END IF;
    INSERT INTO farm.checkpoint AS c (tenant_id, thread_id, ns, checkpoint_id, parent_id, run_id, step, refs, body)
      SELECT p_tenant, p_thread, u.n, u.i, u.p, p_run, u.s, c_refs[u.f:u.l], u.b
        FROM unnest(c_ns, c_id, c_parent, c_step, c_first, c_last, c_body) u(n, i, p, s, f, l, b)
      ON CONFLICT (tenant_id, thread_id, ns, checkpoint_id) DO UPDATE SET step = EXCLUDED.step, refs = EXCLUDED.refs, body = EXCLUDED.body;
    IF b_key IS NOT NULL THEN
      INSERT INTO farm.checkpoint_blob (tenant_id, thread_id, ns, key, blob)
        SELECT p_tenant, p_thread, u.n, u.k, u.b FROM unnest(b_ns, b_key, b_blob) u(n, k, b) ON CONFLICT DO NOTHING;
    END IF;
  END IF;
  IF w_task IS NOT NULL THEN
    PERFORM farm.keep_writes(p_tenant, p_run, p_thread, p_epoch, w_ns, w_ckpt, w_owner, w_task, w_idx, w_path, w_body, w_keep);
  END IF;
  IF x_exec IS NOT NULL THEN
    INSERT INTO farm.node_execution AS e (tenant_id, thread_id, run_id, checkpoint_id, execution_id, node, queue, spec, alone, status, outcome, error,
                                          fence, attempts, worker, published_at, started_at, finished_at)
      SELECT p_tenant, p_thread, p_run, u.c, u.e, u.n, u.q, u.s, u.a, CASE u.st WHEN 'held' THEN 'in_redis' ELSE u.st END, u.o, u.er,
             (u.w IS NOT NULL)::int, (u.w IS NOT NULL)::int, u.w, CASE WHEN u.st <> 'held' THEN clock_timestamp() END,
             to_timestamp(u.b / 1000.0), to_timestamp(u.f / 1000.0)
        FROM unnest(x_ckpt, x_exec, x_node, x_queue, x_spec, x_alone, x_status, x_outcome, x_error, x_worker, x_begun, x_over)
          u(c, e, n, q, s, a, st, o, er, w, b, f)
      ON CONFLICT (tenant_id, run_id, checkpoint_id, execution_id)
      DO UPDATE SET status = EXCLUDED.status, outcome = EXCLUDED.outcome, error = EXCLUDED.error, fence = e.fence + 1,
                    attempts = e.attempts + EXCLUDED.attempts, worker = EXCLUDED.worker, published_at = EXCLUDED.published_at,
                    started_at = EXCLUDED.started_at, finished_at = EXCLUDED.finished_at;
  END IF;
  IF s_gone IS NOT NULL THEN
    DELETE FROM farm.superstep s WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = ANY (s_gone);
  END IF;
  IF s_ckpt IS NOT NULL THEN
    INSERT INTO farm.superstep AS s (tenant_id, run_id, checkpoint_id, width, taken)
      SELECT p_tenant, p_run, u.c, u.w, u.t FROM unnest(s_ckpt, s_width, s_taken) u(c, w, t)
      ON CONFLICT (tenant_id, run_id, checkpoint_id) DO UPDATE SET taken = EXCLUDED.taken;
  END IF;
  UPDATE farm.thread_head h
     SET entry = p_last, entry_id = p_last_id, redis_run = CASE WHEN p_status IS NULL THEN h.redis_run END, head = coalesce(p_head, h.head),
         step = CASE WHEN p_head IS NULL THEN h.step
                     ELSE coalesce(c_step[array_position(c_id, p_head)], h.step) END
   WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread;
  IF p_status IS NOT NULL THEN
    SELECT x.forget, x.next_run, x.next_graph, x.next_queue INTO forget, next_run, next_graph, next_queue
      FROM farm.end_run(p_tenant, p_thread, p_run, p_status, NULL, p_root, false) x;
  END IF;
END $$;

-- Whether nobody has the thread right now, for who has better things to do than to wait for it.
CREATE FUNCTION farm.is_free(p_tenant uuid, p_thread uuid, OUT is_free boolean) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  is_free := farm.try_lock_thread(p_tenant, p_thread);
END $$;

-- The run goes on here, from its last entry. Answers with what is open of it, to be published: none where it was recalled before, or is over.
-- Of a run that was recalled before it answers with what is leased to p_worker already: an answer may have been lost.
--  l_…                  executions that were lost in Redis with the workers that held them
--  h_…                  executions that workers hold there: they are theirs here, too, and whoever of them is dead is found as ever. ZERO: the advance
--  p_keep, p_keep_ckpt  this one is leased to p_worker at once: it executes it, and Redis did not take what it saved. ZERO: the advance
--  p_needs              … if this entry has arrived: the last that it has saved. Without it, what comes now would lack what came before
CREATE FUNCTION farm.recall(
  p_tenant uuid, p_thread uuid, p_run uuid, p_epoch bigint, l_ckpt uuid[], l_exec uuid[], l_worker bigint[],
  h_ckpt uuid[], h_exec uuid[], h_worker bigint[], p_keep_ckpt uuid, p_keep uuid, p_worker bigint, p_needs bigint)
RETURNS TABLE (checkpoint_id uuid, execution_id uuid, graph_id text, node text, queue text, fence bigint, is_kept boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  c_zero constant uuid := '00000000-0000-0000-0000-000000000000';
  v_entry bigint;
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  IF NOT farm.lock_thread(p_tenant, p_thread) THEN RETURN; END IF;
  UPDATE farm.thread_head h SET epoch = farm.next_epoch(h.epoch), redis_run = NULL
   WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread AND h.epoch = p_epoch AND h.redis_run = p_run RETURNING h.entry INTO v_entry;
  IF NOT FOUND THEN
    RETURN QUERY
    SELECT x.ckpt, p_keep, '', '', '', x.fence, true
      FROM farm.thread_head h CROSS JOIN LATERAL (
        SELECT e.checkpoint_id AS ckpt, e.fence FROM farm.node_execution e
         WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_keep_ckpt AND e.execution_id = p_keep
           AND e.status = 'leased' AND e.worker = p_worker
        UNION ALL
        SELECT s.checkpoint_id, s.fence FROM farm.superstep s
         WHERE p_keep = c_zero AND s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_keep_ckpt
           AND s.worker = p_worker) x
     WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread AND h.redis_run IS NULL AND h.entry >= p_needs;
    RETURN;
  END IF;
  RETURN QUERY
  WITH lost AS MATERIALIZED (SELECT u.c, u.e, u.w FROM unnest(l_ckpt, l_exec, l_worker) u(c, e, w)),
  held AS MATERIALIZED (SELECT u.c, u.e, u.w FROM unnest(h_ckpt, h_exec, h_worker) u(c, e, w)),
  back AS (
    UPDATE farm.node_execution e
       SET status = CASE WHEN k.worker IS NOT NULL THEN 'leased' WHEN e.published_at IS NULL THEN 'held' ELSE 'ready' END,
           fence = e.fence + 1, available_at = clock_timestamp(), publishes = 1,
           published_at = CASE WHEN e.published_at IS NOT NULL THEN clock_timestamp() END,
           attempts = e.attempts + CASE WHEN k.worker IS NOT NULL OR l.w IS NOT NULL THEN 1 ELSE 0 END,
           worker = k.worker, started_at = CASE WHEN k.worker IS NOT NULL THEN clock_timestamp() END,
           -- Redis may have forgotten that one was begun: a second attempt continues what a first one has saved, and a first one does not look.
           lost_to = CASE WHEN l.w IS NOT NULL THEN farm.note_loss(e.lost_to, l.w, e.attempts + 1, farm.how_lost(l.w))
                          WHEN k.worker IS NOT NULL OR e.published_at IS NULL THEN e.lost_to
                          ELSE farm.note_loss(e.lost_to, NULL, e.attempts, 'given_back') END
      FROM farm.run r, farm.node_execution x LEFT JOIN lost l ON l.c = x.checkpoint_id AND l.e = x.execution_id
           LEFT JOIN held h ON h.c = x.checkpoint_id AND h.e = x.execution_id
           CROSS JOIN LATERAL (SELECT x.checkpoint_id = p_keep_ckpt AND x.execution_id = p_keep AND v_entry >= p_needs AS is_kept) m
           CROSS JOIN LATERAL (SELECT CASE WHEN m.is_kept THEN p_worker ELSE h.w END AS worker) k
     WHERE r.tenant_id = p_tenant AND r.run_id = p_run
       AND x.tenant_id = p_tenant AND x.run_id = p_run AND x.status = 'in_redis'
       AND e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = x.checkpoint_id AND e.execution_id = x.execution_id
    RETURNING e.checkpoint_id, e.execution_id, r.graph_id, e.node, e.queue, e.fence, e.status, coalesce(m.is_kept, false) AS is_kept)
  SELECT b.checkpoint_id, b.execution_id, b.graph_id, b.node, b.queue, b.fence, b.is_kept FROM back b WHERE b.status = 'ready' OR b.is_kept;
  RETURN QUERY
  WITH advance AS MATERIALIZED (
    SELECT p_keep_ckpt AS c, p_worker AS w, true AS is_kept WHERE p_keep = c_zero AND v_entry >= p_needs
    UNION ALL
    SELECT u.c, u.w, false FROM unnest(h_ckpt, h_exec, h_worker) u(c, e, w) WHERE u.e = c_zero AND (p_keep IS NULL OR p_keep <> c_zero)),
  led AS (
    UPDATE farm.superstep s SET worker = a.w, fence = s.fence + 1, attempts = s.attempts + 1 FROM advance a
     WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = a.c AND s.worker IS NULL
       AND NOT EXISTS (SELECT FROM farm.node_execution e WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = a.c
                          AND e.status IN ('held', 'ready', 'leased'))
    RETURNING s.checkpoint_id, s.fence, a.is_kept)
  SELECT l.checkpoint_id, c_zero, '', '', '', l.fence, true FROM led l WHERE l.is_kept;
END $$;

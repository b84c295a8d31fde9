-- Who may move a thread: admission, cancelling, undoing, and which run is next. Called by persistence/runs.py, always inside a
-- transaction that knows its tenant.
--
-- Lock order, for everyone who begins or ends a run: the thread's row FIRST (farm.lock_thread), then its run, then executions.
-- Whoever holds the thread's row sees every run of it that was admitted, so a run that is to wait cannot miss the end of the one
-- it waits for, and two of these never wait for each other.

-- Whether the thread exists; it is this transaction's from here on.
CREATE OR REPLACE FUNCTION farm.lock_thread(p_tenant uuid, p_thread uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM farm.thread t WHERE t.tenant_id = p_tenant AND t.thread_id = p_thread FOR NO KEY UPDATE;
  RETURN FOUND;
END $$;

-- The same for the healer, which waits for nobody: false also where somebody has it. A deletion may have it for half a minute, and
-- everything else that stands still would wait with the healer.
CREATE OR REPLACE FUNCTION farm.try_lock_thread(p_tenant uuid, p_thread uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM farm.thread t WHERE t.tenant_id = p_tenant AND t.thread_id = p_thread FOR NO KEY UPDATE SKIP LOCKED;
  RETURN FOUND;
END $$;

-- As messages.at_build.
CREATE OR REPLACE FUNCTION farm.at_build(p_queue text, p_build text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE p_build WHEN '' THEN p_queue ELSE p_queue || '@' || p_build END $$;

-- Later than any that was ever given out: also where the database is an older one again, or the thread was made anew.
CREATE OR REPLACE FUNCTION farm.next_epoch(p_epoch bigint) RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT greatest(p_epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) $$;

-- Make a run the one that moves its thread: status running, and its start in the outbox. The thread's lock is held, no run is active.
CREATE OR REPLACE FUNCTION farm.start_run(p_tenant uuid, p_run uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_thread uuid; v_graph text; v_assistant uuid; v_build text; v_tier text;
BEGIN
  UPDATE farm.run r
     SET status = 'running', started_at = clock_timestamp(), updated_at = clock_timestamp(),
         started_head = (SELECT h.head FROM farm.thread_head h WHERE h.tenant_id = p_tenant AND h.thread_id = r.thread_id)
   WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.status = 'pending'
  RETURNING r.thread_id, r.graph_id, r.assistant_id, r.build, r.tier INTO STRICT v_thread, v_graph, v_assistant, v_build, v_tier;
  IF v_tier = 'redis' THEN
    UPDATE farm.thread_head h SET epoch = farm.next_epoch(h.epoch), redis_run = p_run, entry = 0, entry_id = NULL
     WHERE h.tenant_id = p_tenant AND h.thread_id = v_thread;
  END IF;
  INSERT INTO farm.node_execution (tenant_id, thread_id, run_id, checkpoint_id, execution_id, node, queue, spec, published_at, status)
    VALUES (p_tenant, v_thread, p_run, '00000000-0000-0000-0000-000000000000', p_run, '__start__', farm.at_build('', v_build), '', clock_timestamp(),
            CASE v_tier WHEN 'redis' THEN 'in_redis' ELSE 'ready' END);
  UPDATE farm.thread t
     SET status = 'busy', error = NULL, updated_at = clock_timestamp(), graph_id = v_graph, assistant_id = v_assistant,
         metadata = t.metadata || jsonb_build_object('graph_id', v_graph, 'assistant_id', v_assistant)
   WHERE t.tenant_id = p_tenant AND t.thread_id = v_thread;
END $$;

-- The one rule for who is next: the oldest waiting run of a thread that no run moves. It is started, and named, so that its start can
-- be published; NULL: nobody waits. The thread's lock is held. Whoever ends a run calls this in the same transaction.
CREATE OR REPLACE FUNCTION farm.start_next(p_tenant uuid, p_thread uuid, OUT started uuid, OUT started_graph text, OUT started_queue text) LANGUAGE plpgsql AS $$
BEGIN
  SELECT r.run_id, r.graph_id, farm.at_build('', r.build) INTO started, started_graph, started_queue FROM farm.run r
   WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread AND r.status = 'pending'
     AND NOT EXISTS (SELECT FROM farm.run a WHERE a.tenant_id = p_tenant AND a.thread_id = p_thread AND a.status = 'running')
   ORDER BY r.created_at, r.run_id LIMIT 1;
  IF started IS NOT NULL THEN PERFORM farm.start_run(p_tenant, started); END IF;
END $$;

-- Nobody who executes for this run may save anything any more: what is open is cancelled, and its fence has moved on.
CREATE OR REPLACE FUNCTION farm.fence_out(p_tenant uuid, p_run uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- What Redis commits for it from now on is of no line that counts. The thread's lock is held, so that nothing arrives meanwhile.
  UPDATE farm.thread_head h SET epoch = farm.next_epoch(h.epoch), redis_run = NULL
   WHERE h.tenant_id = p_tenant AND h.redis_run = p_run
     AND h.thread_id = (SELECT r.thread_id FROM farm.run r WHERE r.tenant_id = p_tenant AND r.run_id = p_run);
  -- Until a look finds nothing open. Each statement waits for the commits under way, and does not see the executions that these have
  -- made ready; one of those may be committing, too, by the time of the next. What commits holds the row of its execution (an advance:
  -- of its superstep), so when a look finds neither, nobody is left who could add one. In the order in which a settle takes them.
  LOOP
    UPDATE farm.node_execution e SET status = 'cancelled', fence = e.fence + 1, finished_at = clock_timestamp()
     WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.status IN ('held', 'ready', 'leased', 'in_redis');
    DELETE FROM farm.superstep s WHERE s.tenant_id = p_tenant AND s.run_id = p_run;
    EXIT WHEN NOT EXISTS (SELECT FROM farm.node_execution e
                           WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.status IN ('held', 'ready', 'leased'))
          AND NOT EXISTS (SELECT FROM farm.superstep s WHERE s.tenant_id = p_tenant AND s.run_id = p_run);
  END LOOP;
END $$;

-- End a run from outside, with what it finished: interrupted, and the thread is free (not: waiting for a human). The thread's lock is held.
CREATE OR REPLACE FUNCTION farm.stop_run(p_tenant uuid, p_run uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_thread uuid;
BEGIN
  UPDATE farm.run r SET status = 'interrupted', finished_at = clock_timestamp(), updated_at = clock_timestamp()
   WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.status IN ('pending', 'running')
  RETURNING r.thread_id INTO STRICT v_thread;
  PERFORM farm.fence_out(p_tenant, p_run);
  -- After the fence: a commit that was under way may have moved the head until then.
  UPDATE farm.run r
     SET ended_head = (SELECT h.head FROM farm.thread_head h WHERE h.tenant_id = p_tenant AND h.thread_id = v_thread)
   WHERE r.tenant_id = p_tenant AND r.run_id = p_run;
  UPDATE farm.thread t SET status = 'idle', updated_at = clock_timestamp(), state_updated_at = clock_timestamp()
   WHERE t.tenant_id = p_tenant AND t.thread_id = v_thread
     AND NOT EXISTS (SELECT FROM farm.run a WHERE a.tenant_id = p_tenant AND a.thread_id = v_thread AND a.status = 'running');
END $$;

-- A run that writes over what another has saved keeps that beside it, so that it can be undone: its answer to a node's second question
-- goes over the row that holds the answer to the first.
CREATE OR REPLACE FUNCTION farm.keep_replaced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.replaced_body := OLD.body;
  NEW.replaced_run_id := OLD.run_id;
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER keep_replaced BEFORE UPDATE ON farm.checkpoint_write FOR EACH ROW
  WHEN (NEW.run_id IS DISTINCT FROM OLD.run_id AND NEW.replaced_body IS NOT DISTINCT FROM OLD.replaced_body)  -- but not when it is put back
  EXECUTE FUNCTION farm.keep_replaced();

-- Undo a run: what it made is removed, the thread's head goes back to where it found it, its row is deleted. The thread's lock is held.
-- What it wrote to checkpoints that stay goes too (answers to interrupts, results of nodes executed again), and what it wrote over is
-- put back.
CREATE OR REPLACE FUNCTION farm.undo_run(p_tenant uuid, p_run uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v farm.run;
BEGIN
  SELECT * INTO STRICT v FROM farm.run r WHERE r.tenant_id = p_tenant AND r.run_id = p_run FOR UPDATE;
  IF v.started_at IS NOT NULL THEN
    PERFORM farm.fence_out(p_tenant, p_run);
    DELETE FROM farm.checkpoint_write w
     USING farm.checkpoint c
     WHERE c.tenant_id = p_tenant AND c.thread_id = v.thread_id AND c.run_id = p_run
       AND w.tenant_id = p_tenant AND w.thread_id = v.thread_id AND w.ns = c.ns AND w.checkpoint_id = c.checkpoint_id;
    UPDATE farm.checkpoint_write w SET body = w.replaced_body, run_id = w.replaced_run_id, replaced_body = NULL, replaced_run_id = NULL
     WHERE w.tenant_id = p_tenant AND w.thread_id = v.thread_id AND w.run_id = p_run AND w.replaced_body IS NOT NULL;
    DELETE FROM farm.checkpoint_write w WHERE w.tenant_id = p_tenant AND w.thread_id = v.thread_id AND w.run_id = p_run;
    WITH gone AS (DELETE FROM farm.checkpoint c WHERE c.tenant_id = p_tenant AND c.thread_id = v.thread_id AND c.run_id = p_run
                  RETURNING c.ns, c.refs)
    DELETE FROM farm.checkpoint_blob b
     USING (SELECT DISTINCT g.ns, unnest(g.refs) AS key FROM gone g) u
     WHERE b.tenant_id = p_tenant AND b.thread_id = v.thread_id AND b.ns = u.ns AND b.key = u.key
       AND (b.ns, b.key) NOT IN (SELECT c.ns, unnest(c.refs) FROM farm.checkpoint c       -- what they took over from those that stay
                                  WHERE c.tenant_id = p_tenant AND c.thread_id = v.thread_id AND c.run_id IS DISTINCT FROM p_run);
    UPDATE farm.thread_head h
       SET head = v.started_head,
           step = coalesce((SELECT c.step FROM farm.checkpoint c WHERE c.tenant_id = p_tenant AND c.thread_id = v.thread_id
                                                                   AND c.ns = '' AND c.checkpoint_id = v.started_head), -2)
     WHERE h.tenant_id = p_tenant AND h.thread_id = v.thread_id;
  END IF;
  DELETE FROM farm.node_execution e WHERE e.tenant_id = p_tenant AND e.run_id = p_run;
  DELETE FROM farm.run r WHERE r.tenant_id = p_tenant AND r.run_id = p_run;
  UPDATE farm.thread t
     SET status = CASE WHEN EXISTS (SELECT FROM farm.checkpoint_write w WHERE w.tenant_id = p_tenant AND w.thread_id = v.thread_id AND w.ns = ''
                                       AND w.checkpoint_id = v.started_head AND w.idx = -3) THEN 'interrupted' ELSE 'idle' END,
         updated_at = clock_timestamp(), state_updated_at = clock_timestamp()
   WHERE t.tenant_id = p_tenant AND t.thread_id = v.thread_id
     AND NOT EXISTS (SELECT FROM farm.run a WHERE a.tenant_id = p_tenant AND a.thread_id = v.thread_id AND a.status = 'running');
END $$;

-- Admit a run. p_then NULL: start it if the thread is free, else change nothing and answer how the thread is. Else carry out the
-- decision (engine/contention.py) that was made of that answer, in the same transaction and so under the same lock:
--   wait       it is pending
--   stop undo  every run before it is ended or undone, then it starts
--  p_fingerprint  of the graph; p_manifest: to be kept with it, NULL where it is known to be there
--  p_goes_on_from  the fingerprint of the thread's last run that this was checked against
--  p_build  whose workers are to execute it
-- verdict: missing (no such thread) | exists (that run id is taken) | busy (nothing was done) | started | waits
--          changed (nothing was done: its last run was begun under another build of the graph, begun_under, and nobody has checked)
-- started: the run whose start is to be published; ended: the runs that this stopped or undid; gone_epoch: under which Redis moved one of them
CREATE OR REPLACE FUNCTION farm.admit(
  p_tenant uuid, p_thread uuid, p_run uuid, p_assistant uuid, p_graph text, p_strategy text, p_spec bytea, p_metadata jsonb,
  p_inline text, p_tier text, p_create boolean, p_forget boolean, p_then text, p_fingerprint text, p_manifest jsonb, p_goes_on_from text, p_build text,
  OUT verdict text, OUT is_busy boolean, OUT waiting int, OUT started uuid, OUT started_graph text, OUT started_queue text, OUT ended uuid[],
  OUT gone_epoch bigint, OUT created_at timestamptz, OUT updated_at timestamptz, OUT begun_under text)
LANGUAGE plpgsql AS $$
DECLARE v_open uuid; v_graph text;
BEGIN
  IF p_create THEN
    INSERT INTO farm.thread (tenant_id, thread_id) VALUES (p_tenant, p_thread) ON CONFLICT DO NOTHING;
    INSERT INTO farm.thread_head (tenant_id, thread_id) VALUES (p_tenant, p_thread) ON CONFLICT DO NOTHING;
  END IF;
  IF NOT farm.lock_thread(p_tenant, p_thread) THEN verdict := 'missing'; RETURN; END IF;
  SELECT count(*) FILTER (WHERE r.status = 'running') > 0, count(*) FILTER (WHERE r.status = 'pending') INTO is_busy, waiting
    FROM farm.run r WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread AND r.status IN ('running', 'pending');
  IF p_then IS NULL AND (is_busy OR waiting > 0) THEN verdict := 'busy'; RETURN; END IF;
  -- On a busy thread nobody knows yet what this run will find: the worker that starts it looks again.
  IF NOT is_busy AND p_fingerprint <> '' THEN
    SELECT r.fingerprint, r.graph_id INTO begun_under, v_graph FROM farm.run r
     WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread ORDER BY r.created_at DESC LIMIT 1;
    IF v_graph = p_graph AND begun_under NOT IN ('', p_fingerprint, p_goes_on_from) THEN verdict := 'changed'; RETURN; END IF;
  END IF;
  IF p_manifest IS NOT NULL THEN
    INSERT INTO farm.graph_build (tenant_id, graph_id, fingerprint, manifest) VALUES (p_tenant, p_graph, p_fingerprint, p_manifest)
      ON CONFLICT DO NOTHING;
  END IF;
  IF p_then IN ('stop', 'undo') THEN
    SELECT h.epoch INTO gone_epoch FROM farm.thread_head h WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread AND h.redis_run IS NOT NULL;
    -- Those that wait come first: ending the one that runs must find nobody to start.
    FOR v_open IN SELECT r.run_id FROM farm.run r WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread
                     AND r.status IN ('running', 'pending') ORDER BY r.status = 'running', r.created_at LOOP
      IF p_then = 'stop' THEN PERFORM farm.stop_run(p_tenant, v_open); ELSE PERFORM farm.undo_run(p_tenant, v_open); END IF;
      ended := ended || v_open;
    END LOOP;
  END IF;
  INSERT INTO farm.run (tenant_id, run_id, thread_id, assistant_id, graph_id, status, strategy, spec, metadata, fingerprint, build, tier, inline_reason, forget_thread)
    VALUES (p_tenant, p_run, p_thread, p_assistant, p_graph, 'pending', p_strategy, p_spec, p_metadata, p_fingerprint, p_build, p_tier, p_inline, p_forget)
    ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN verdict := 'exists'; RETURN; END IF;
  -- A thread that is used beyond a stateless run stays: else the healer would look at that run for ever. A look at the newest run before
  -- this one tells, since those before the last run that was not stateless are cleared already.
  IF NOT p_forget AND (SELECT r.forget_thread FROM farm.run r
                        WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread AND r.run_id <> p_run ORDER BY r.created_at DESC LIMIT 1) THEN
    UPDATE farm.run r SET forget_thread = false WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread AND r.forget_thread;
  END IF;
  SELECT n.started, n.started_graph, n.started_queue INTO started, started_graph, started_queue FROM farm.start_next(p_tenant, p_thread) n;
  SELECT r.created_at, r.updated_at INTO created_at, updated_at FROM farm.run r WHERE r.tenant_id = p_tenant AND r.run_id = p_run;
  verdict := CASE WHEN started IS NOT DISTINCT FROM p_run THEN 'started' ELSE 'waits' END;
END $$;

-- The same on a thread that nobody moves, as a transaction of its own in one round trip. verdict: missing | started; anything else: nothing
-- was done that counts, and farm.admit is to be asked. Times in microseconds since 1970.
CREATE OR REPLACE FUNCTION farm.admit_alone(
  p_tenant uuid, p_thread uuid, p_run uuid, p_assistant uuid, p_graph text, p_strategy text, p_spec bytea, p_metadata jsonb,
  p_inline text, p_tier text, p_create boolean, p_forget boolean, p_fingerprint text, p_manifest jsonb, p_goes_on_from text, p_build text,
  OUT verdict text, OUT started_queue text, OUT created bigint, OUT updated bigint)
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  SELECT a.verdict, a.started_queue, (extract(epoch FROM a.created_at) * 1000000)::bigint, (extract(epoch FROM a.updated_at) * 1000000)::bigint
    INTO verdict, started_queue, created, updated
    FROM farm.admit(p_tenant, p_thread, p_run, p_assistant, p_graph, p_strategy, p_spec, p_metadata, p_inline, p_tier, p_create, p_forget, NULL,
                    p_fingerprint, p_manifest, p_goes_on_from, p_build) a;
END $$;

-- Name this run as its client named the request. NULLs: the name is this run's, in this transaction; else whose it is, and whether the same
-- was asked for. Waits for a transaction that takes the same name right now. Taken before the thread's lock, by whoever admits.
CREATE OR REPLACE FUNCTION farm.take_name(
  p_tenant uuid, p_name text, p_digest bytea, p_run uuid, p_kept interval, OUT run_id uuid, OUT is_same boolean) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO farm.idempotency_key AS k (tenant_id, name, digest, run_id) VALUES (p_tenant, p_name, p_digest, p_run)
    ON CONFLICT (tenant_id, name) DO UPDATE SET digest = EXCLUDED.digest, run_id = EXCLUDED.run_id, created_at = clock_timestamp()
    WHERE k.created_at < clock_timestamp() - p_kept;
  IF NOT FOUND THEN
    SELECT k.run_id, k.digest = p_digest INTO run_id, is_same FROM farm.idempotency_key k WHERE k.tenant_id = p_tenant AND k.name = p_name;
  END IF;
END $$;

-- Stop or undo one run, and start who waited behind it. verdict: missing (no such thread, run, or it is over) | stopped | undone
-- gone_epoch: under which Redis moved it
CREATE OR REPLACE FUNCTION farm.cancel_run(
  p_tenant uuid, p_thread uuid, p_run uuid, p_undo boolean,
  OUT verdict text, OUT forget boolean, OUT gone_epoch bigint, OUT started uuid, OUT started_graph text, OUT started_queue text)
LANGUAGE plpgsql AS $$
BEGIN
  verdict := 'missing';
  IF NOT farm.lock_thread(p_tenant, p_thread) THEN RETURN; END IF;
  SELECT r.forget_thread INTO forget FROM farm.run r
   WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.thread_id = p_thread AND r.status IN ('pending', 'running');
  IF NOT FOUND THEN RETURN; END IF;
  SELECT h.epoch INTO gone_epoch FROM farm.thread_head h WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread AND h.redis_run = p_run;
  IF p_undo THEN
    PERFORM farm.undo_run(p_tenant, p_run);
    verdict := 'undone';
  ELSE
    PERFORM farm.stop_run(p_tenant, p_run);
    verdict := 'stopped';
  END IF;
  SELECT n.started, n.started_graph, n.started_queue INTO started, started_graph, started_queue FROM farm.start_next(p_tenant, p_thread) n;
END $$;

-- Remove a thread with all that is its own; its open runs are fenced out first. ended: the runs that were open; gone_epoch: under which
-- Redis moved one of them.
CREATE OR REPLACE FUNCTION farm.forget_thread(p_tenant uuid, p_thread uuid, OUT was_there boolean, OUT ended uuid[], OUT gone_epoch bigint) LANGUAGE plpgsql AS $$
BEGIN
  was_there := farm.lock_thread(p_tenant, p_thread);
  IF NOT was_there THEN RETURN; END IF;
  SELECT coalesce(array_agg(r.run_id ORDER BY r.created_at), '{}') INTO ended FROM farm.run r
   WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread AND r.status IN ('pending', 'running');
  SELECT h.epoch INTO gone_epoch FROM farm.thread_head h WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread AND h.redis_run IS NOT NULL;
  -- A worker that commits for this thread right now ends first, or finds its fence moved: nobody adds a row from here on.
  PERFORM farm.fence_out(p_tenant, r.run_id) FROM unnest(ended) r (run_id);
  DELETE FROM farm.superstep s USING farm.run r
   WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread AND s.tenant_id = p_tenant AND s.run_id = r.run_id;
  DELETE FROM farm.dead_letter d USING farm.run r
   WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread AND d.tenant_id = p_tenant AND d.run_id = r.run_id;
  DELETE FROM farm.node_execution e USING farm.run r
   WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread AND e.tenant_id = p_tenant AND e.run_id = r.run_id;
  DELETE FROM farm.run r WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread;
  DELETE FROM farm.checkpoint_write w WHERE w.tenant_id = p_tenant AND w.thread_id = p_thread;
  DELETE FROM farm.checkpoint_blob b WHERE b.tenant_id = p_tenant AND b.thread_id = p_thread;
  DELETE FROM farm.checkpoint c WHERE c.tenant_id = p_tenant AND c.thread_id = p_thread;
  DELETE FROM farm.thread_head h WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread;
  DELETE FROM farm.thread t WHERE t.tenant_id = p_tenant AND t.thread_id = p_thread;
END $$;

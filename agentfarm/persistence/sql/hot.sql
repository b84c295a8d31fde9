-- The hot path: what a worker does with a node execution. Each is one round trip, sets its tenant itself and is called outside of a
-- transaction, as farm_app; see persistence/executions.py. May be run again: drops what it defines.
--
-- Errors: AF001 the head has moved; AF002 the lease is lost or the run is over; AF003 a checkpoint id does not come after its parent's;
-- AF004 an execution saves its writes twice.
-- Each means that nothing was written. Their texts hold ids only.
--
-- Lock order: who ends a run takes the thread's row first (admit.sql), then executions, then the head; who hands over takes its own
-- execution, then the head. ZERO, the checkpoint of a start and the execution of an advance, is '00000000-0000-0000-0000-000000000000'.
DO $$
DECLARE v_function regprocedure;
BEGIN
  FOR v_function IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'farm'::regnamespace AND p.proname = ANY (ARRAY[
      'is_lost', 'how_lost', 'losses', 'deaths', 'is_spent', 'is_advance_spent', 'note_loss', 'loss_story', 'times', 'read_checkpoint', 'claim', 'load_step', 'claim_advance', 'read_end', 'save_own', 'save_writes', 'keep_writes', 'save_checkpoints', 'end_run',
      'commit', 'settle', 'rest_of_wave', 'retry_later', 'give_back', 'leased_to', 'hold', 'put_checkpoint', 'put_writes', 'open_at_head', 'bury', 'start_waiting', 'note_warnings', 'mark_announced',
      'register', 'beat', 'leave']) LOOP
    EXECUTE format('DROP ROUTINE %s', v_function);
  END LOOP;
END $$;

-- ------------------------------------------------------------------------------------------------ who is dead

-- Whether what this process holds may be taken over: its session lock is free (it died, or lost Postgres), or it has been silent for a
-- lease. A hint: safety rests on the fence alone.
CREATE FUNCTION farm.is_lost(p_worker bigint, p_lease interval) RETURNS boolean LANGUAGE sql VOLATILE AS $$
  SELECT p_worker IS NULL OR pg_try_advisory_xact_lock_shared(p_worker)
      OR NOT EXISTS (SELECT FROM farm.worker w WHERE w.worker = p_worker AND w.ended_at IS NULL AND w.beat_at > clock_timestamp() - p_lease) $$;

-- As far as is known: its process is gone, or its connection is, or it lives and does not beat.
CREATE FUNCTION farm.how_lost(p_worker bigint) RETURNS text LANGUAGE sql VOLATILE AS $$
  SELECT CASE WHEN pg_try_advisory_xact_lock_shared(p_worker) THEN 'died' ELSE 'silent' END $$;

-- How many workers were lost while they held it, or gave it back. Tries that a RetryPolicy asked for do not count: they are no crashes.
CREATE FUNCTION farm.losses(p_lost_to jsonb) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT coalesce(jsonb_array_length(p_lost_to), 0) $$;

-- Of these, who did not give it back.
CREATE FUNCTION farm.deaths(p_lost_to jsonb) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT coalesce(jsonb_array_length(jsonb_path_query_array(p_lost_to, '$[*] ? (!(@.given_back == true))')), 0) $$;

-- Whether it has had its attempts. Workers that were lost with other work in them do not tell whose fault it was: with none that was lost
-- over this alone, it takes twice as many. Giving back is no death; what can never be saved is not tried for ever all the same.
CREATE FUNCTION farm.is_spent(p_lost_to jsonb, p_max int) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT p_lost_to IS NOT NULL
     AND (farm.deaths(p_lost_to) >= p_max AND jsonb_path_exists(p_lost_to, '$[*] ? (@.alone == true)')
          OR farm.deaths(p_lost_to) >= 2 * p_max OR farm.losses(p_lost_to) - farm.deaths(p_lost_to) >= 5 * p_max) $$;

-- The same of a superstep's advance, of which nobody notes who else's work was lost with it.
CREATE FUNCTION farm.is_advance_spent(p_attempts int, p_given_back int, p_max int) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT p_attempts - p_given_back >= 2 * p_max OR p_given_back >= 5 * p_max $$;

-- One more entry. The worker's row counts what was lost with it, so that whoever looks later knows that the others were not alone.
--  p_how    died, silent, or given_back: it lives, and does not work on it any more
--  p_alone  it held nothing else
CREATE FUNCTION farm.note_loss(p_lost_to jsonb, p_worker bigint, p_attempt int, p_how text, p_alone boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql VOLATILE AS $$
DECLARE v_name text;
BEGIN
  IF p_how = 'given_back' THEN
    SELECT w.name INTO v_name FROM farm.worker w WHERE w.worker = p_worker;
  ELSE
    UPDATE farm.worker w SET lost = w.lost + 1 WHERE w.worker = p_worker RETURNING w.name INTO v_name;
  END IF;
  RETURN coalesce(p_lost_to, '[]')
      || (jsonb_build_object('attempt', p_attempt, 'at', clock_timestamp(), 'worker', coalesce(v_name, p_worker::text, 'Redis'))
          || CASE p_how WHEN 'given_back' THEN '{"given_back": true}'::jsonb ELSE jsonb_build_object('how', p_how, 'alone', p_alone) END);
END $$;

-- What happened each time, of the last twelve: for the run's error, without the workers' names, which are the operator's.
CREATE FUNCTION farm.loss_story(p_lost_to jsonb) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT string_agg(n || ': '
           || CASE WHEN x->'given_back' = 'true' THEN 'given back by a worker that ended or could not save its result'
                   ELSE CASE x->>'how' WHEN 'silent' THEN 'its worker was frozen or cut off' WHEN 'died' THEN 'its worker died' ELSE 'its worker was lost' END
                        || CASE x->'alone' WHEN 'true' THEN ', executing nothing else' ELSE '' END END, '; ' ORDER BY n)
    FROM jsonb_array_elements(p_lost_to) WITH ORDINALITY u(x, n) WHERE n > jsonb_array_length(p_lost_to) - 12 $$;

CREATE FUNCTION farm.times(p_count int) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE p_count WHEN 1 THEN 'once' ELSE p_count || ' times' END $$;

-- ------------------------------------------------------------------------------------------------ claim

-- A checkpoint of the graph itself with its blobs, in the order in which the body lists them.
CREATE FUNCTION farm.read_checkpoint(p_tenant uuid, p_thread uuid, p_ckpt uuid, OUT body bytea, OUT blobs bytea[]) LANGUAGE plpgsql STABLE AS $$
BEGIN
  -- A subquery a key, not a join: the generic plan of the join hashed all blobs of the thread.
  SELECT c.body, (SELECT array_agg((SELECT b.blob FROM farm.checkpoint_blob b
                                     WHERE b.tenant_id = p_tenant AND b.thread_id = p_thread AND b.ns = '' AND b.key = u.k) ORDER BY u.n)
                    FROM unnest(c.refs) WITH ORDINALITY AS u(k, n))
    INTO body, blobs FROM farm.checkpoint c
   WHERE c.tenant_id = p_tenant AND c.thread_id = p_thread AND c.ns = '' AND c.checkpoint_id = p_ckpt;
END $$;

-- Take the lease and answer with all that the execution needs. One row, always.
--  p_max       workers that may be lost over it; then it is left to the healer, which buries it. From the second on so is taking it over: with
--              a delay, and perhaps to the quarantine
--  p_retake    this process does not work on it: if it holds the lease, an answer got lost, and it takes the lease again
--  p_have_run  the caller has this run's spec; p_have: the checkpoint whose bytes it has
--  verdict     ok | busy: a living worker has it, or it is not due | gone: done, cancelled, or its run is over
--              redis: the start of a run that Redis moves, to be opened there under `epoch`; nothing was leased, all that it needs is here
--  attempt     1, and one more for each worker that was lost over it or gave it back: tries of a RetryPolicy are in its spec
--  head        the thread's head: where a start begins, and what the commit will swap
CREATE FUNCTION farm.claim(
  p_tenant uuid, p_run uuid, p_ckpt uuid, p_exec uuid, p_worker bigint, p_lease interval, p_max int, p_retake boolean,
  p_have_run boolean, p_have uuid,
  OUT verdict text, OUT thread uuid, OUT fence bigint, OUT attempt int, OUT graph text, OUT build text, OUT run_spec bytea, OUT spec bytea,
  OUT epoch bigint, OUT taken boolean, OUT wave boolean, OUT head uuid, OUT body bytea, OUT blobs bytea[],
  OUT w_owner uuid[], OUT w_task uuid[], OUT w_idx int[], OUT w_path text[], OUT w_body bytea[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  c_zero constant uuid := '00000000-0000-0000-0000-000000000000';
  v_status text; v_at uuid; v_alone boolean;
BEGIN
  -- Not synchronous: a claim that Postgres loses in a crash was never used, since a commit asks for fence and worker and flushes what
  -- came before it. (ALTER FUNCTION … SET would be undone before the commit.)
  PERFORM set_config('farm.tenant', p_tenant::text, true), set_config('synchronous_commit', 'off', true);
  UPDATE farm.node_execution e
     SET status = 'leased', fence = e.fence + 1, attempts = e.attempts + 1, worker = p_worker, started_at = clock_timestamp(),
         lost_to = CASE WHEN e.status = 'leased' AND e.worker <> p_worker
                        THEN farm.note_loss(e.lost_to, e.worker, e.attempts, farm.how_lost(e.worker)) ELSE e.lost_to END
   WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p_exec
     AND (e.status = 'ready' AND e.available_at <= clock_timestamp() AND (e.lost_to IS NULL OR NOT farm.is_spent(e.lost_to, p_max))
          OR e.status = 'leased' AND p_retake AND e.worker = p_worker
          OR e.status = 'leased' AND p_max > 1 AND farm.deaths(e.lost_to) = 0 AND farm.is_lost(e.worker, p_lease))
  RETURNING e.thread_id, e.fence, farm.losses(e.lost_to) + 1, e.spec, e.alone INTO thread, fence, attempt, spec, v_alone;
  IF NOT FOUND THEN
    SELECT e.status INTO v_status FROM farm.node_execution e
     WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p_exec;
    verdict := CASE WHEN v_status IN ('held', 'ready', 'leased') THEN 'busy' WHEN v_status = 'in_redis' AND p_exec = p_run THEN 'redis' ELSE 'gone' END;
    IF verdict <> 'redis' THEN RETURN; END IF;
    SELECT r.thread_id, r.graph_id, r.build, r.spec, h.epoch, h.head, 1, ''::bytea INTO thread, graph, build, run_spec, epoch, head, attempt, spec
      FROM farm.run r JOIN farm.thread_head h ON h.tenant_id = r.tenant_id AND h.thread_id = r.thread_id AND h.redis_run = r.run_id AND h.entry = 0
     WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.status = 'running';
    IF NOT FOUND THEN verdict := 'gone'; RETURN; END IF;
    SELECT c.body, c.blobs INTO body, blobs FROM farm.read_checkpoint(p_tenant, claim.thread, claim.head) c;
    SELECT array_agg(w.execution_id), array_agg(w.task_id), array_agg(w.idx), array_agg(w.task_path), array_agg(w.body)
      INTO w_owner, w_task, w_idx, w_path, w_body FROM farm.checkpoint_write w
     WHERE w.tenant_id = p_tenant AND w.thread_id = claim.thread AND w.ns = '' AND w.checkpoint_id = claim.head;
    RETURN;
  END IF;
  SELECT r.status, r.graph_id, r.build, CASE WHEN NOT p_have_run THEN r.spec END INTO v_status, graph, build, run_spec
    FROM farm.run r WHERE r.tenant_id = p_tenant AND r.run_id = p_run;
  IF v_status IS DISTINCT FROM 'running' THEN
    UPDATE farm.node_execution e SET status = 'cancelled', fence = e.fence + 1, finished_at = clock_timestamp()
     WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p_exec;
    verdict := 'gone';
    RETURN;
  END IF;
  verdict := 'ok';
  SELECT h.head INTO head FROM farm.thread_head h WHERE h.tenant_id = p_tenant AND h.thread_id = claim.thread;
  v_at := CASE WHEN p_ckpt = c_zero THEN head ELSE p_ckpt END;
  IF v_at IS DISTINCT FROM p_have THEN
    SELECT c.body, c.blobs INTO body, blobs FROM farm.read_checkpoint(p_tenant, claim.thread, v_at) c;
  END IF;
  IF NOT v_alone THEN
    SELECT s.taken, s.wave INTO taken, wave FROM farm.superstep s WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_ckpt;
  END IF;
  IF p_ckpt = c_zero THEN      -- a start enters the superstep again: it needs what all have written there
    SELECT array_agg(w.execution_id), array_agg(w.task_id), array_agg(w.idx), array_agg(w.task_path), array_agg(w.body)
      INTO w_owner, w_task, w_idx, w_path, w_body FROM farm.checkpoint_write w
     WHERE w.tenant_id = p_tenant AND w.thread_id = claim.thread AND w.ns = '' AND w.checkpoint_id = v_at;
  ELSE                         -- a node: what is its own and what is the run's, however many siblings it has
    SELECT array_agg(w.execution_id), array_agg(w.task_id), array_agg(w.idx), array_agg(w.task_path), array_agg(w.body)
      INTO w_owner, w_task, w_idx, w_path, w_body FROM farm.checkpoint_write w
     WHERE w.tenant_id = p_tenant AND w.thread_id = claim.thread AND w.ns = '' AND w.checkpoint_id = v_at
       AND w.execution_id IN (p_exec, c_zero);
  END IF;
END $$;

-- All that the advance of a superstep needs: the checkpoint, every sibling's writes, and how each was settled.
CREATE FUNCTION farm.load_step(
  p_tenant uuid, p_run uuid, p_thread uuid, p_ckpt uuid, p_have uuid, OUT body bytea, OUT blobs bytea[],
  OUT w_owner uuid[], OUT w_task uuid[], OUT w_idx int[], OUT w_path text[], OUT w_body bytea[], OUT settled text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  IF p_ckpt IS DISTINCT FROM p_have THEN
    SELECT c.body, c.blobs INTO body, blobs FROM farm.read_checkpoint(p_tenant, p_thread, p_ckpt) c;
  END IF;
  SELECT array_agg(w.execution_id), array_agg(w.task_id), array_agg(w.idx), array_agg(w.task_path), array_agg(w.body)
    INTO w_owner, w_task, w_idx, w_path, w_body FROM farm.checkpoint_write w
   WHERE w.tenant_id = p_tenant AND w.thread_id = p_thread AND w.ns = '' AND w.checkpoint_id = p_ckpt;
  SELECT json_object_agg(e.execution_id, e.outcome)::text INTO settled FROM farm.node_execution e
   WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.status = 'done' AND e.outcome IS NOT NULL;
END $$;

-- Take the advance of a superstep that is complete and that nobody moves on. Answers as claim does, with all siblings' writes;
-- spec: the call of the sibling that was settled last.
CREATE FUNCTION farm.claim_advance(
  p_tenant uuid, p_run uuid, p_ckpt uuid, p_worker bigint, p_lease interval, p_max int, p_retake boolean, p_have_run boolean, p_have uuid,
  OUT verdict text, OUT thread uuid, OUT fence bigint, OUT attempt int, OUT graph text, OUT build text, OUT run_spec bytea, OUT spec bytea,
  OUT body bytea, OUT blobs bytea[],
  OUT w_owner uuid[], OUT w_task uuid[], OUT w_idx int[], OUT w_path text[], OUT w_body bytea[], OUT settled text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE v_from bigint;
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true), set_config('synchronous_commit', 'off', true);
  SELECT r.thread_id, r.graph_id, r.build, CASE WHEN NOT p_have_run THEN r.spec END INTO thread, graph, build, run_spec
    FROM farm.run r WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.status = 'running'
     -- What Redis moves is advanced there, however complete it looks here.
     AND NOT EXISTS (SELECT FROM farm.thread_head h WHERE h.tenant_id = p_tenant AND h.thread_id = r.thread_id AND h.redis_run = p_run);
  IF NOT FOUND THEN verdict := 'gone'; RETURN; END IF;
  UPDATE farm.superstep s SET worker = p_worker, fence = s.fence + 1, attempts = s.attempts + 1
    FROM farm.superstep o  -- the same, as it was
   WHERE o.tenant_id = p_tenant AND o.run_id = p_run AND o.checkpoint_id = p_ckpt
     AND s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_ckpt AND NOT farm.is_advance_spent(s.attempts, s.given_back, p_max)
     AND (s.worker IS NULL OR p_retake AND s.worker = p_worker OR farm.is_lost(s.worker, p_lease))
     AND NOT EXISTS (SELECT FROM farm.node_execution e WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt
                        AND e.status IN ('held', 'ready', 'leased'))
  RETURNING s.fence, s.attempts, o.worker INTO fence, attempt, v_from;
  IF NOT FOUND THEN
    PERFORM FROM farm.superstep s WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_ckpt;
    verdict := CASE WHEN FOUND THEN 'busy' ELSE 'gone' END;
    RETURN;
  END IF;
  verdict := 'ok';
  UPDATE farm.worker w SET lost = w.lost + 1 WHERE w.worker = v_from AND v_from <> p_worker;  -- as note_loss does
  SELECT e.spec INTO spec FROM farm.node_execution e
   WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt ORDER BY e.finished_at DESC LIMIT 1;
  SELECT l.body, l.blobs, l.w_owner, l.w_task, l.w_idx, l.w_path, l.w_body, l.settled
    INTO body, blobs, w_owner, w_task, w_idx, w_path, w_body, settled
    FROM farm.load_step(p_tenant, p_run, claim_advance.thread, p_ckpt, p_have) l;
END $$;

-- ------------------------------------------------------------------------------------------------ what who waited is answered with

-- How a run ended, and the checkpoint at which it did, with the writes that were there then: what a later run wrote over as it was, and
-- nothing of what it added. (A run that goes on from a question keeps its answer, and what nodes then do, at the same checkpoint. Of a
-- write that two later runs wrote over, the first of them is what is left.) graph NULL: there is no such run on this thread.
CREATE FUNCTION farm.read_end(
  p_tenant uuid, p_thread uuid, p_run uuid,
  OUT graph text, OUT is_over boolean, OUT error text, OUT head uuid, OUT body bytea, OUT blobs bytea[],
  OUT w_owner uuid[], OUT w_task uuid[], OUT w_idx int[], OUT w_path text[], OUT w_body bytea[]) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE v_end timestamptz;
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  SELECT r.graph_id, r.finished_at IS NOT NULL, r.error::text, r.ended_head, r.finished_at INTO graph, is_over, error, head, v_end
    FROM farm.run r WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.thread_id = p_thread;
  IF v_end IS NULL OR head IS NULL OR error IS NOT NULL THEN RETURN; END IF;  -- of a run that failed, nobody reads the state
  SELECT c.body, c.blobs INTO body, blobs FROM farm.read_checkpoint(p_tenant, p_thread, read_end.head) c;
  SELECT array_agg(w.execution_id), array_agg(w.task_id), array_agg(w.idx), array_agg(w.task_path), array_agg(w.body)
    INTO w_owner, w_task, w_idx, w_path, w_body
    FROM (SELECT o.execution_id, o.task_id, o.idx, o.task_path,
                 CASE WHEN o.run_id IN (SELECT r.run_id FROM farm.run r WHERE r.tenant_id = p_tenant AND r.thread_id = p_thread
                                           AND (r.finished_at IS NULL OR r.finished_at > v_end))
                      THEN o.replaced_body ELSE o.body END AS body
            FROM farm.checkpoint_write o
           WHERE o.tenant_id = p_tenant AND o.thread_id = p_thread AND o.ns = '' AND o.checkpoint_id = read_end.head) w
   WHERE w.body IS NOT NULL;
END $$;

-- ------------------------------------------------------------------------------------------------ what a commit saves

-- All ordinary writes of an execution, packed. A second row of them in one run is a bug and raises AF004; what an earlier run left there
-- (it failed, and the node is executed again) is replaced.
CREATE FUNCTION farm.save_own(
  p_tenant uuid, p_run uuid, p_thread uuid, p_ckpt uuid, p_exec uuid, p_fence bigint, p_path text, p_writes bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO farm.checkpoint_write AS w (tenant_id, thread_id, checkpoint_id, execution_id, task_id, idx, run_id, fence, task_path, body)
    VALUES (p_tenant, p_thread, p_ckpt, p_exec, p_exec, 0, p_run, p_fence, p_path, p_writes)
    ON CONFLICT (tenant_id, thread_id, ns, checkpoint_id, execution_id, task_id, idx)
    DO UPDATE SET body = EXCLUDED.body, fence = EXCLUDED.fence, run_id = EXCLUDED.run_id, task_path = EXCLUDED.task_path
    WHERE w.run_id IS DISTINCT FROM EXCLUDED.run_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING errcode = 'AF004', message = format('Node execution %s has saved its writes already.', p_exec);
  END IF;
END $$;

-- Control writes and those of the run itself: the last one counts.
CREATE FUNCTION farm.save_writes(
  p_tenant uuid, p_run uuid, p_thread uuid, p_fence bigint,
  w_ns text[], w_ckpt uuid[], w_owner uuid[], w_task uuid[], w_idx int[], w_path text[], w_body bytea[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO farm.checkpoint_write AS w (tenant_id, thread_id, ns, checkpoint_id, execution_id, task_id, idx, run_id, fence, task_path, body)
    SELECT p_tenant, p_thread, u.n, u.c, u.o, u.t, u.i, p_run, p_fence, u.p, u.b FROM unnest(w_ns, w_ckpt, w_owner, w_task, w_idx, w_path, w_body) u(n, c, o, t, i, p, b)
    ON CONFLICT (tenant_id, thread_id, ns, checkpoint_id, execution_id, task_id, idx)
    DO UPDATE SET body = EXCLUDED.body, fence = EXCLUDED.fence, run_id = EXCLUDED.run_id, task_path = EXCLUDED.task_path;
END $$;

-- Writes that were saved before their execution's commit. w_keep: of an ordinary one the first counts; of the others the last.
CREATE FUNCTION farm.keep_writes(
  p_tenant uuid, p_run uuid, p_thread uuid, p_fence bigint,
  w_ns text[], w_ckpt uuid[], w_owner uuid[], w_task uuid[], w_idx int[], w_path text[], w_body bytea[], w_keep boolean[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO farm.checkpoint_write AS w (tenant_id, thread_id, ns, checkpoint_id, execution_id, task_id, idx, run_id, fence, task_path, body)
    SELECT p_tenant, p_thread, u.n, u.c, u.o, u.t, u.i, p_run, p_fence, u.p, u.b
      FROM unnest(w_ns, w_ckpt, w_owner, w_task, w_idx, w_path, w_body, w_keep) u(n, c, o, t, i, p, b, k) WHERE u.k
    ON CONFLICT DO NOTHING;
  INSERT INTO farm.checkpoint_write AS w (tenant_id, thread_id, ns, checkpoint_id, execution_id, task_id, idx, run_id, fence, task_path, body)
    SELECT p_tenant, p_thread, u.n, u.c, u.o, u.t, u.i, p_run, p_fence, u.p, u.b
      FROM unnest(w_ns, w_ckpt, w_owner, w_task, w_idx, w_path, w_body, w_keep) u(n, c, o, t, i, p, b, k) WHERE NOT u.k
    ON CONFLICT (tenant_id, thread_id, ns, checkpoint_id, execution_id, task_id, idx)
    DO UPDATE SET body = EXCLUDED.body, fence = EXCLUDED.fence, run_id = EXCLUDED.run_id, task_path = EXCLUDED.task_path;
END $$;

-- New checkpoints with their new blobs. c_first, c_last: which of c_refs are whose. A child comes after its parent, whatever the
-- workers' clocks say: the latest checkpoint of a thread is the one with the highest id.
CREATE FUNCTION farm.save_checkpoints(
  p_tenant uuid, p_thread uuid, p_run uuid,
  c_ns text[], c_id uuid[], c_parent uuid[], c_step int[], c_first int[], c_last int[], c_refs text[], c_body bytea[],
  b_ns text[], b_key text[], b_blob bytea[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM unnest(c_id, c_parent) u(i, p) WHERE u.i <= u.p) THEN
    RAISE EXCEPTION USING errcode = 'AF003', message = format('A new checkpoint of thread %s does not come after its parent.', p_thread);
  END IF;
  INSERT INTO farm.checkpoint (tenant_id, thread_id, ns, checkpoint_id, parent_id, run_id, step, refs, body)
    SELECT p_tenant, p_thread, u.n, u.i, u.p, p_run, u.s, c_refs[u.f:u.l], u.b
      FROM unnest(c_ns, c_id, c_parent, c_step, c_first, c_last, c_body) u(n, i, p, s, f, l, b);
  IF b_key IS NOT NULL THEN
    INSERT INTO farm.checkpoint_blob (tenant_id, thread_id, ns, key, blob)
      SELECT p_tenant, p_thread, u.n, u.k, u.b FROM unnest(b_ns, b_key, b_blob) u(n, k, b) ON CONFLICT DO NOTHING;
  END IF;
END $$;

-- The run is over: status, thread, and the start of the one that waited behind it. The thread's lock is held.
--  p_fence  it may have open executions: nobody may save anything for it any more
CREATE FUNCTION farm.end_run(
  p_tenant uuid, p_thread uuid, p_run uuid, p_status text, p_error jsonb, p_root uuid, p_fence boolean,
  OUT forget boolean, OUT next_run uuid, OUT next_graph text, OUT next_queue text) LANGUAGE plpgsql AS $$
BEGIN
  UPDATE farm.run r SET status = p_status, error = p_error, root_run_id = coalesce(p_root, r.root_run_id),
                        ended_head = (SELECT h.head FROM farm.thread_head h WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread),
                        finished_at = clock_timestamp(), updated_at = clock_timestamp()
   WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.status = 'running' RETURNING r.forget_thread INTO forget;
  IF NOT FOUND THEN RAISE EXCEPTION USING errcode = 'AF002', message = format('Run %s is over already.', p_run); END IF;
  IF p_fence THEN PERFORM farm.fence_out(p_tenant, p_run); END IF;
  UPDATE farm.thread t
     SET status = CASE p_status WHEN 'success' THEN 'idle' WHEN 'interrupted' THEN 'interrupted' ELSE 'error' END,
         error = p_error->>'message', updated_at = clock_timestamp(), state_updated_at = clock_timestamp()
   WHERE t.tenant_id = p_tenant AND t.thread_id = p_thread;
  SELECT n.started, n.started_graph, n.started_queue INTO next_run, next_graph, next_queue FROM farm.start_next(p_tenant, p_thread) n;
END $$;

-- Make a segment durable: fence check, writes, checkpoints, head, and the next executions or the run's end. All or nothing.
--  p_exec            ZERO: an advance, whose lease is the superstep's row
--  p_from, p_head    the thread's head is swapped from one to the other; p_head NULL: it stays
--  p_writes, p_path  all ordinary writes of this execution, packed: a second row of them is a bug and raises
--  p_at, p_next …    the executions that are next, at checkpoint p_at. p_alone: it is the only one of its superstep
--  p_width           so many may be worked on at once; the others are held
--  p_lease_next      the first of them is leased to this worker already
--  p_sent            a wave: which of them have a message; the others are taken by workers that have settled one. NULL: each has one
--  p_status          the run is over
--  p_waits           until it is on the disk. What ends a run does so anyway, and so brings all before it there
CREATE FUNCTION farm.commit(
  p_tenant uuid, p_run uuid, p_ckpt uuid, p_exec uuid, p_fence bigint, p_worker bigint, p_thread uuid, p_from uuid, p_head uuid,
  p_outcome text, p_error_type text, p_writes bytea, p_path text,
  c_ns text[], c_id uuid[], c_parent uuid[], c_step int[], c_first int[], c_last int[], c_refs text[], c_body bytea[],
  b_ns text[], b_key text[], b_blob bytea[],
  w_ns text[], w_ckpt uuid[], w_owner uuid[], w_task uuid[], w_idx int[], w_path text[], w_body bytea[],
  p_at uuid, p_next uuid[], n_node text[], n_queue text[], n_spec bytea[], p_alone boolean, p_width int, p_lease_next boolean, p_sent boolean[],
  p_status text, p_error jsonb, p_root uuid, p_waits boolean,
  OUT forget boolean, OUT next_run uuid, OUT next_graph text, OUT next_queue text) LANGUAGE plpgsql AS $$
DECLARE c_zero constant uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  IF NOT p_waits AND p_status IS NULL THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
  IF p_status IS NOT NULL THEN PERFORM farm.lock_thread(p_tenant, p_thread); END IF;
  IF p_exec = c_zero THEN
    DELETE FROM farm.superstep s
     WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_ckpt AND s.fence = p_fence AND s.worker = p_worker;
  ELSE
    UPDATE farm.node_execution e SET status = 'done', outcome = p_outcome, error = p_error_type, finished_at = clock_timestamp()
     WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p_exec
       AND e.fence = p_fence AND e.worker = p_worker AND e.status = 'leased';
  END IF;
  IF NOT FOUND THEN RAISE EXCEPTION USING errcode = 'AF002', message = format('The lease on node execution %s is lost.', p_exec); END IF;
  IF p_head IS NOT NULL THEN
    UPDATE farm.thread_head h SET head = p_head,
           step = coalesce(c_step[array_position(c_id, p_head)],
                           (SELECT c.step FROM farm.checkpoint c
                             WHERE c.tenant_id = p_tenant AND c.thread_id = p_thread AND c.ns = '' AND c.checkpoint_id = p_head), h.step)
     WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread AND h.head IS NOT DISTINCT FROM p_from;
    IF NOT FOUND THEN
      RAISE EXCEPTION USING errcode = 'AF001', message = format('Thread %s has moved past checkpoint %s. Nothing was saved.', p_thread, p_from);
    END IF;
  END IF;
  IF p_writes IS NOT NULL THEN
    PERFORM farm.save_own(p_tenant, p_run, p_thread, p_ckpt, p_exec, p_fence, p_path, p_writes);
  END IF;
  IF w_task IS NOT NULL THEN
    PERFORM farm.save_writes(p_tenant, p_run, p_thread, p_fence, w_ns, w_ckpt, w_owner, w_task, w_idx, w_path, w_body);
  END IF;
  IF c_id IS NOT NULL THEN
    PERFORM farm.save_checkpoints(p_tenant, p_thread, p_run, c_ns, c_id, c_parent, c_step, c_first, c_last, c_refs, c_body, b_ns, b_key, b_blob);
  END IF;
  IF p_next IS NOT NULL THEN
    INSERT INTO farm.node_execution (tenant_id, thread_id, run_id, checkpoint_id, execution_id, node, queue, spec, alone,
                                     status, published_at, publishes, fence, attempts, worker, started_at)
      SELECT p_tenant, p_thread, p_run, p_at, u.e, u.n, u.q, u.s, p_alone,
             CASE WHEN l.mine THEN 'leased' WHEN u.o <= p_width THEN 'ready' ELSE 'held' END,
             CASE WHEN u.o <= p_width THEN clock_timestamp() END, CASE WHEN p_sent[u.o] IS FALSE THEN 0 ELSE 1 END,
             CASE WHEN l.mine THEN 1 ELSE 0 END, CASE WHEN l.mine THEN 1 ELSE 0 END,
             CASE WHEN l.mine THEN p_worker END, CASE WHEN l.mine THEN clock_timestamp() END
        FROM unnest(p_next, n_node, n_queue, n_spec) WITH ORDINALITY u(e, n, q, s, o) CROSS JOIN LATERAL (SELECT p_lease_next AND u.o = 1 AS mine) l;
    IF NOT p_alone THEN
      INSERT INTO farm.superstep (tenant_id, run_id, checkpoint_id, width, wave) VALUES (p_tenant, p_run, p_at, cardinality(p_next), p_sent IS NOT NULL);
    END IF;
  END IF;
  IF p_status IS NOT NULL THEN
    SELECT x.forget, x.next_run, x.next_graph, x.next_queue INTO forget, next_run, next_graph, next_queue
      FROM farm.end_run(p_tenant, p_thread, p_run, p_status, p_error, p_root, p_status NOT IN ('success', 'interrupted')) x;
  END IF;
END $$;

-- One of several siblings is settled. No shared row is locked (96 siblings on 16 connections: 14 ms, with a counter row 29): commit, then
-- look. The later of two commits always sees both; if both look late, taking the superstep's row elects one.
-- A CALL outside of a transaction: one round trip; the second, tiny transaction writes only for the last one.
--  p_held    siblings are held (max_concurrency): let one go, to be published: h_exec …
--  p_take    of a wave: lease the next ready sibling of the same queue that has no message to this worker: n_exec …
--            taken: an interrupt() has got the answer without an id
--  p_stop    of a wave: this worker takes none, so another is to be asked for one that has no message: h_exec …
--  p_waits   until it is on the disk
--  s_fence   not NULL: this was the last, and the superstep's advance is leased to this worker under that fence
CREATE PROCEDURE farm.settle(
  p_tenant uuid, p_run uuid, p_ckpt uuid, p_exec uuid, p_fence bigint, p_worker bigint, p_thread uuid,
  p_outcome text, p_error_type text, p_taken boolean, p_writes bytea, p_path text,
  w_ns text[], w_ckpt uuid[], w_owner uuid[], w_task uuid[], w_idx int[], w_path text[], w_body bytea[], p_held boolean, p_take boolean, p_stop boolean, p_waits boolean,
  INOUT s_fence bigint, INOUT h_exec uuid, INOUT h_node text, INOUT h_queue text,
  INOUT n_exec uuid, INOUT n_fence bigint, INOUT n_spec bytea, INOUT taken boolean) LANGUAGE plpgsql AS $$
DECLARE v_queue text;
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  IF NOT p_waits THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
  UPDATE farm.node_execution e SET status = 'done', outcome = p_outcome, error = p_error_type, finished_at = clock_timestamp()
   WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p_exec
     AND e.fence = p_fence AND e.worker = p_worker AND e.status = 'leased' RETURNING e.queue INTO v_queue;
  IF NOT FOUND THEN RAISE EXCEPTION USING errcode = 'AF002', message = format('The lease on node execution %s is lost.', p_exec); END IF;
  IF p_writes IS NOT NULL THEN
    PERFORM farm.save_own(p_tenant, p_run, p_thread, p_ckpt, p_exec, p_fence, p_path, p_writes);
  END IF;
  IF w_task IS NOT NULL THEN
    PERFORM farm.save_writes(p_tenant, p_run, p_thread, p_fence, w_ns, w_ckpt, w_owner, w_task, w_idx, w_path, w_body);
  END IF;
  IF p_taken THEN
    UPDATE farm.superstep s SET taken = true WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_ckpt;
  END IF;
  IF p_held THEN
    UPDATE farm.node_execution e
       SET status = 'ready', published_at = clock_timestamp(), available_at = clock_timestamp(), publishes = CASE WHEN p_take THEN 0 ELSE 1 END
     WHERE (e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id) = (
       SELECT x.tenant_id, x.run_id, x.checkpoint_id, x.execution_id FROM farm.node_execution x
        WHERE x.tenant_id = p_tenant AND x.run_id = p_run AND x.checkpoint_id = p_ckpt AND x.status = 'held'
        ORDER BY x.execution_id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING e.execution_id, e.node, e.queue INTO h_exec, h_node, h_queue;
  END IF;
  IF p_take THEN               -- two looks: those after my own id, then all, so that workers do not meet at the first
    FOR i IN 1..2 LOOP
      UPDATE farm.node_execution e SET status = 'leased', fence = e.fence + 1, attempts = e.attempts + 1, worker = p_worker, started_at = clock_timestamp()
       WHERE (e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id) = (
         SELECT x.tenant_id, x.run_id, x.checkpoint_id, x.execution_id FROM farm.node_execution x
          WHERE x.tenant_id = p_tenant AND x.run_id = p_run AND x.checkpoint_id = p_ckpt AND x.status = 'ready'
            AND x.queue = v_queue AND x.publishes = 0 AND x.available_at <= clock_timestamp() AND x.lost_to IS NULL AND x.outcome IS NULL AND (i = 2 OR x.execution_id > p_exec)
          ORDER BY x.execution_id LIMIT 1 FOR UPDATE SKIP LOCKED)
      RETURNING e.execution_id, e.fence, e.spec INTO n_exec, n_fence, n_spec;
      EXIT WHEN FOUND;
    END LOOP;
    IF n_exec IS NOT NULL THEN
      h_exec := NULL;          -- whichever was let go is this one, or is taken by one of those at work
      SELECT s.taken INTO taken FROM farm.superstep s WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_ckpt;
      RETURN;
    END IF;
  END IF;
  IF p_stop AND h_exec IS NULL THEN
    UPDATE farm.node_execution e SET publishes = 1, published_at = clock_timestamp()
     WHERE (e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id) = (
       SELECT x.tenant_id, x.run_id, x.checkpoint_id, x.execution_id FROM farm.node_execution x
        WHERE x.tenant_id = p_tenant AND x.run_id = p_run AND x.checkpoint_id = p_ckpt AND x.status = 'ready' AND x.publishes = 0
        ORDER BY x.execution_id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING e.execution_id, e.node, e.queue INTO h_exec, h_node, h_queue;
  END IF;
  COMMIT;
  -- Not synchronous: an election that Postgres loses in a crash is found by the healer.
  PERFORM set_config('farm.tenant', p_tenant::text, true), set_config('synchronous_commit', 'off', true);
  PERFORM FROM farm.node_execution e
    WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.status IN ('held', 'ready', 'leased') LIMIT 1;
  IF NOT FOUND THEN
    UPDATE farm.superstep s SET worker = p_worker, fence = s.fence + 1, attempts = s.attempts + 1
     WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_ckpt AND s.worker IS NULL RETURNING s.fence INTO s_fence;
  END IF;
END $$;

-- Of a wave's siblings that wait without a message, so many that are to have one now. Each is named once.
CREATE FUNCTION farm.rest_of_wave(p_tenant uuid, p_run uuid, p_ckpt uuid, p_limit int) RETURNS TABLE (execution_id uuid, node text, queue text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true), set_config('synchronous_commit', 'off', true);
  RETURN QUERY
  WITH picked AS MATERIALIZED (
    SELECT x.execution_id FROM farm.node_execution x
     WHERE x.tenant_id = p_tenant AND x.run_id = p_run AND x.checkpoint_id = p_ckpt AND x.status = 'ready' AND x.publishes = 0
     ORDER BY x.execution_id LIMIT p_limit FOR UPDATE SKIP LOCKED)
  UPDATE farm.node_execution e SET publishes = 1, published_at = clock_timestamp() FROM picked p
   WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p.execution_id
  RETURNING e.execution_id, e.node, e.queue;
END $$;

-- The node failed and its RetryPolicy wants another try, later: nothing is saved but that. p_spec: the call, with its tries counted.
-- Due later: published by the healer at its time (heal.sql: ops_lost, ops_publish), which goes by available_at and published_at.
CREATE FUNCTION farm.retry_later(
  p_tenant uuid, p_run uuid, p_ckpt uuid, p_exec uuid, p_fence bigint, p_worker bigint, p_error_type text, p_spec bytea, p_tries int, p_delay interval)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  UPDATE farm.node_execution e
     SET status = 'ready', outcome = 'retry', error = p_error_type, worker = NULL, spec = p_spec, tries = p_tries, publishes = 1,
         available_at = clock_timestamp() + p_delay, published_at = CASE WHEN p_delay <= '0' THEN clock_timestamp() END
   WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p_exec
     AND e.fence = p_fence AND e.worker = p_worker AND e.status = 'leased';
  IF NOT FOUND THEN RAISE EXCEPTION USING errcode = 'AF002', message = format('The lease on node execution %s is lost.', p_exec); END IF;
END $$;

-- This worker lives but does not work on it any more: the healer publishes it at once, from the fourth time on 1, 2, 4 … 30 s later. It is
-- noted, so that what can never be saved is not tried for ever, and counts apart from deaths (is_spent): a long node is given back at each
-- roll-out. Nothing happens where the lease is lost already. Waits a second for whoever has the row: its caller must beat.
CREATE FUNCTION farm.give_back(p_tenant uuid, p_run uuid, p_ckpt uuid, p_exec uuid, p_fence bigint, p_worker bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true), set_config('lock_timeout', '1s', true);
  IF p_exec = '00000000-0000-0000-0000-000000000000' THEN
    UPDATE farm.superstep s SET worker = NULL, fence = s.fence + 1, given_back = s.given_back + 1, published_at = NULL
     WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_ckpt AND s.fence = p_fence AND s.worker = p_worker;
  ELSE
    UPDATE farm.node_execution e
       SET status = 'ready', fence = e.fence + 1, worker = NULL, published_at = NULL,
           available_at = clock_timestamp() + CASE WHEN farm.losses(e.lost_to) - farm.deaths(e.lost_to) < 3 THEN interval '0'
             ELSE interval '1 s' * least(power(2, farm.losses(e.lost_to) - farm.deaths(e.lost_to) - 3), 30) END,
           lost_to = farm.note_loss(e.lost_to, e.worker, e.attempts, 'given_back')
     WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p_exec
       AND e.fence = p_fence AND e.worker = p_worker AND e.status = 'leased';
  END IF;
  RETURN FOUND;
END $$;

-- What of a run this worker holds: executions, and advances under the execution ZERO. After an answer was lost: it may not know of all.
CREATE FUNCTION farm.leased_to(p_tenant uuid, p_run uuid, p_worker bigint)
RETURNS TABLE (checkpoint_id uuid, execution_id uuid, fence bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  RETURN QUERY
  SELECT e.checkpoint_id, e.execution_id, e.fence FROM farm.node_execution e
   WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.status = 'leased' AND e.worker = p_worker
  UNION ALL
  SELECT s.checkpoint_id, '00000000-0000-0000-0000-000000000000', s.fence FROM farm.superstep s
   WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.worker = p_worker;
END $$;

-- ------------------------------------------------------------------------------------------------ while a node runs

-- What follows in this transaction is saved only while this worker holds the lease: nobody takes it over before the transaction ends.
CREATE FUNCTION farm.hold(p_tenant uuid, p_run uuid, p_ckpt uuid, p_exec uuid, p_fence bigint, p_worker bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  IF p_exec = '00000000-0000-0000-0000-000000000000' THEN
    PERFORM FROM farm.superstep s WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_ckpt
                                    AND s.fence = p_fence AND s.worker = p_worker FOR SHARE;
  ELSE
    PERFORM FROM farm.node_execution e WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p_exec
                                         AND e.fence = p_fence AND e.worker = p_worker AND e.status = 'leased' FOR SHARE;
  END IF;
  IF NOT FOUND THEN RAISE EXCEPTION USING errcode = 'AF002', message = format('The lease on node execution %s is lost.', p_exec); END IF;
END $$;

-- A checkpoint that is saved at once: of a subgraph inside the node (p_ns), or of a run that one worker executes whole (p_ns = '', and
-- the head moves from p_from). The same id again replaces it: LangGraph saves its last one twice when a run leaves.
CREATE FUNCTION farm.put_checkpoint(
  p_tenant uuid, p_run uuid, p_ckpt uuid, p_exec uuid, p_fence bigint, p_worker bigint, p_thread uuid, p_from uuid,
  p_ns text, p_id uuid, p_parent uuid, p_step int, p_refs text[], p_body bytea, b_key text[], b_blob bytea[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM farm.hold(p_tenant, p_run, p_ckpt, p_exec, p_fence, p_worker);
  IF p_id <= p_parent THEN
    RAISE EXCEPTION USING errcode = 'AF003', message = format('A new checkpoint of thread %s does not come after its parent.', p_thread);
  END IF;
  IF p_ns = '' THEN
    UPDATE farm.thread_head h SET head = p_id, step = p_step
     WHERE h.tenant_id = p_tenant AND h.thread_id = p_thread AND (h.head IS NOT DISTINCT FROM p_from OR h.head = p_id);
    IF NOT FOUND THEN
      RAISE EXCEPTION USING errcode = 'AF001', message = format('Thread %s has moved past checkpoint %s. Nothing was saved.', p_thread, p_from);
    END IF;
  END IF;
  INSERT INTO farm.checkpoint AS c (tenant_id, thread_id, ns, checkpoint_id, parent_id, run_id, step, refs, body)
    VALUES (p_tenant, p_thread, p_ns, p_id, p_parent, p_run, p_step, p_refs, p_body)
    ON CONFLICT (tenant_id, thread_id, ns, checkpoint_id) DO UPDATE SET step = EXCLUDED.step, refs = EXCLUDED.refs, body = EXCLUDED.body;
  IF b_key IS NOT NULL THEN
    INSERT INTO farm.checkpoint_blob (tenant_id, thread_id, ns, key, blob)
      SELECT p_tenant, p_thread, p_ns, u.k, u.b FROM unnest(b_key, b_blob) u(k, b) ON CONFLICT DO NOTHING;
  END IF;
END $$;

-- Writes that are saved at once: results of @task calls, the mark of an error handler, the nodes of a subgraph inside the node.
--  w_keep  of an ordinary write the first counts: a second attempt finds what the first had finished
CREATE FUNCTION farm.put_writes(
  p_tenant uuid, p_run uuid, p_ckpt uuid, p_exec uuid, p_fence bigint, p_worker bigint, p_thread uuid,
  w_ns text[], w_ckpt uuid[], w_owner uuid[], w_task uuid[], w_idx int[], w_path text[], w_body bytea[], w_keep boolean[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM farm.hold(p_tenant, p_run, p_ckpt, p_exec, p_fence, p_worker);
  PERFORM farm.keep_writes(p_tenant, p_run, p_thread, p_fence, w_ns, w_ckpt, w_owner, w_task, w_idx, w_path, w_body, w_keep);
END $$;

-- ------------------------------------------------------------------------------------------------ for the healer, as the tenant

-- What of a run waits for a worker: for a message that came again after its own execution was done.
CREATE FUNCTION farm.open_at_head(p_tenant uuid, p_run uuid)
RETURNS TABLE (checkpoint_id uuid, execution_id uuid, graph_id text, node text, queue text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  RETURN QUERY
  UPDATE farm.node_execution e SET published_at = clock_timestamp(), publishes = greatest(e.publishes, 1)
    FROM farm.run r JOIN farm.thread_head h ON h.tenant_id = r.tenant_id AND h.thread_id = r.thread_id
   WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.status = 'running'
     AND e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = h.head
     AND e.status = 'ready' AND e.available_at <= clock_timestamp()
  RETURNING e.checkpoint_id, e.execution_id, r.graph_id, e.node, e.queue;
END $$;

-- A node execution or an advance that has had its attempts (is_spent, is_advance_spent) is given up, and its run with it.
-- buried NULL: it was none, or somebody has its thread right now.
CREATE FUNCTION farm.bury(
  p_tenant uuid, p_run uuid, p_ckpt uuid, p_exec uuid, p_lease interval, p_max int,
  OUT buried text, OUT thread uuid, OUT graph text, OUT error jsonb, OUT forget boolean, OUT next_run uuid, OUT next_graph text, OUT next_queue text) LANGUAGE plpgsql AS $$
DECLARE v_node text; v_count int; v_lost_to jsonb; v_why text;
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  SELECT r.thread_id, r.graph_id INTO thread, graph FROM farm.run r WHERE r.tenant_id = p_tenant AND r.run_id = p_run;
  IF NOT FOUND OR NOT farm.try_lock_thread(p_tenant, thread) THEN RETURN; END IF;
  PERFORM FROM farm.run r WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.status = 'running';
  IF NOT FOUND THEN RETURN; END IF;
  IF p_exec = '00000000-0000-0000-0000-000000000000' THEN
    DELETE FROM farm.superstep s
     WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.checkpoint_id = p_ckpt
       AND farm.is_advance_spent(s.attempts, s.given_back, p_max) AND farm.is_lost(s.worker, p_lease)
    RETURNING '__advance__', s.attempts INTO v_node, v_count;
    v_why := format('The step after its nodes was begun %s by a worker, and never finished.', farm.times(v_count));
  ELSE
    UPDATE farm.node_execution e
       SET status = 'dead', fence = e.fence + 1, error = 'NodeCrashed', finished_at = clock_timestamp()
     WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.checkpoint_id = p_ckpt AND e.execution_id = p_exec
       AND e.status = 'ready' AND farm.is_spent(e.lost_to, p_max)
    RETURNING e.node, farm.losses(e.lost_to), e.lost_to INTO v_node, v_count, v_lost_to;
    v_why := format('Node %s was begun %s by a worker, and never finished. Attempt %s.', v_node, farm.times(v_count), farm.loss_story(v_lost_to));
  END IF;
  IF v_node IS NULL THEN RETURN; END IF;
  buried := v_node;
  INSERT INTO farm.dead_letter (tenant_id, run_id, thread_id, checkpoint_id, execution_id, graph_id, node, attempts, lost_to)
    VALUES (p_tenant, p_run, thread, p_ckpt, p_exec, graph, v_node, v_count, v_lost_to);
  error := jsonb_build_object('error', 'NodeCrashed', 'node', v_node, 'attempts', v_count, 'message', v_why)
        || CASE WHEN v_lost_to IS NULL THEN '{}' ELSE jsonb_build_object('lost_to', v_lost_to) END;
  SELECT x.forget, x.next_run, x.next_graph, x.next_queue INTO forget, next_run, next_graph, next_queue
    FROM farm.end_run(p_tenant, thread, p_run, 'error', error, NULL, true) x;
END $$;

-- A run that waits for a thread which nobody moves: start it. NULL: there was none, or somebody has the thread right now.
CREATE FUNCTION farm.start_waiting(p_tenant uuid, p_thread uuid, OUT started uuid, OUT graph text, OUT queue text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true);
  IF farm.try_lock_thread(p_tenant, p_thread) THEN
    SELECT n.started, n.started_graph, n.started_queue INTO started, graph, queue FROM farm.start_next(p_tenant, p_thread) n;
  END IF;
END $$;

-- ------------------------------------------------------------------------------------------------ once a run, after its end

-- Values of this run that were passed on as plain data: [[where, type]], each once, the first hundred.
CREATE FUNCTION farm.note_warnings(p_tenant uuid, p_run uuid, p_warnings jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true), set_config('synchronous_commit', 'off', true);
  UPDATE farm.run r
     SET warnings = (SELECT jsonb_agg(DISTINCT w) FROM jsonb_array_elements(coalesce(r.warnings, '[]') || p_warnings) w)
   WHERE r.tenant_id = p_tenant AND r.run_id = p_run
     AND NOT coalesce(r.warnings, '[]') @> p_warnings AND jsonb_array_length(coalesce(r.warnings, '[]')) < 100;
  RETURN FOUND;
END $$;

-- Its end is in its stream. Not synchronous: a mark that Postgres loses in a crash is made again by the healer.
CREATE FUNCTION farm.mark_announced(p_tenant uuid, p_run uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('farm.tenant', p_tenant::text, true), set_config('synchronous_commit', 'off', true);
  UPDATE farm.run r SET announced_at = clock_timestamp() WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.announced_at IS NULL;
  RETURN FOUND;
END $$;

-- ------------------------------------------------------------------------------------------------ a worker's lease

-- The lock is held before the row can be seen. Waits for it: a probe may hold it for a moment, and try_lock would make the process look dead.
CREATE FUNCTION farm.register(p_worker bigint, p_name text, p_host text, p_pid int, p_build text, p_queues text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_lock(p_worker);
  INSERT INTO farm.worker (worker, name, host, pid, build, queues) VALUES (p_worker, p_name, p_host, p_pid, p_build, p_queues);
END $$;

-- Whether this worker is still the one that it was.
CREATE FUNCTION farm.beat(p_worker bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  UPDATE farm.worker w SET beat_at = clock_timestamp() WHERE w.worker = p_worker AND w.ended_at IS NULL;
  RETURN FOUND;
END $$;

CREATE FUNCTION farm.leave(p_worker bigint) RETURNS void LANGUAGE sql AS $$
  UPDATE farm.worker w SET ended_at = clock_timestamp() WHERE w.worker = p_worker AND w.ended_at IS NULL $$;

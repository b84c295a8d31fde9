-- What the healer finds, over all tenants of a home, as farm_ops: ids and times. Safe to run several at once, bounded work a call.
-- Open executions are found by way of the runs that are active (partial index, few rows) and their threads' heads, so that
-- node_execution needs no index but its key. What has to be decided under a thread's lock is done as the tenant (hot.sql: bury,
-- start_waiting). May be run again: drops what it defines.
DO $$
DECLARE v_function regprocedure;
BEGIN
  FOR v_function IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'farm'::regnamespace AND p.proname LIKE 'ops\_%' LOOP
    EXECUTE format('DROP ROUTINE %s', v_function);
  END LOOP;
END $$;

-- Executions of workers that died (their lock is free) or fell silent (their row is older than the lease) are ready once more, fence + 1:
-- after the first loss at once, since it was most likely not its fault, then 1, 2, 4 … 60 s later. What was lost with two workers goes to
-- the quarantine, whose worker executes one at a time, where one serves it: alone it does no harm, and shows whether it is the one that kills.
--  action  again: to be published now | later: published when its delay is over | bury: it has had its attempts (hot.sql: is_spent)
CREATE FUNCTION farm.ops_sweep(p_lease interval, p_max int, p_limit int)
RETURNS TABLE (action text, tenant_id uuid, run_id uuid, checkpoint_id uuid, execution_id uuid, graph_id text, node text, queue text)
LANGUAGE plpgsql SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
  v_live bigint[];       -- spares a look at each worker for each execution; who has come since is not in it, so is_lost has the last word
  v_quarantines text[];  -- builds whose quarantine is served, or was a moment ago: its worker is killed by what it is for, and comes back
BEGIN
  UPDATE farm.worker w SET ended_at = clock_timestamp() WHERE w.ended_at IS NULL AND pg_try_advisory_xact_lock_shared(w.worker);
  DELETE FROM farm.worker w WHERE w.ended_at < clock_timestamp() - interval '7 days';
  SELECT coalesce(array_agg(w.worker), '{}') INTO v_live FROM farm.worker w WHERE w.ended_at IS NULL AND w.beat_at > clock_timestamp() - p_lease;
  SELECT coalesce(array_agg(DISTINCT w.build), '{}') INTO v_quarantines FROM farm.worker w
   WHERE 'quarantine' = ANY (w.queues) AND w.beat_at > clock_timestamp() - interval '1 min';
  RETURN QUERY
  WITH bad AS MATERIALIZED (
    SELECT e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id, r.graph_id, e.status, e.worker, e.attempts, e.lost_to, e.queue,
           split_part(e.queue, '@', 1) AS own_queue, split_part(e.queue, '@', 2) AS build
      FROM farm.run r
      LEFT JOIN farm.thread_head h ON h.tenant_id = r.tenant_id AND h.thread_id = r.thread_id
      JOIN farm.node_execution e ON e.tenant_id = r.tenant_id AND e.run_id = r.run_id
                                AND e.checkpoint_id = ANY (ARRAY['00000000-0000-0000-0000-000000000000', h.head])
     WHERE r.status = 'running'
       AND (e.status = 'leased' AND NOT e.worker = ANY (v_live) AND farm.is_lost(e.worker, p_lease)
            OR e.status = 'ready' AND e.lost_to IS NOT NULL
               AND (farm.is_spent(e.lost_to, p_max)
                    OR split_part(e.queue, '@', 1) = 'quarantine' AND NOT split_part(e.queue, '@', 2) = ANY (v_quarantines)
                       AND jsonb_path_exists(e.lost_to, '$[*].from')))
     LIMIT p_limit FOR UPDATE OF e SKIP LOCKED),
  advancing AS MATERIALIZED (
    SELECT s.worker FROM farm.run r JOIN farm.superstep s ON s.tenant_id = r.tenant_id AND s.run_id = r.run_id
     WHERE r.status = 'running' AND s.worker IS NOT NULL),
  moved AS MATERIALIZED (
    SELECT FROM farm.run r JOIN farm.thread_head h ON h.tenant_id = r.tenant_id AND h.thread_id = r.thread_id AND h.redis_run = r.run_id
     WHERE r.status = 'running' LIMIT 1),
  -- A batch that was cut, and a worker of which something was lost before, do not tell who was alone. Nor does one that may have held
  -- something in Redis, which nobody sees from here: while Redis moves runs, only one that reads the quarantine alone, where none of these is.
  noted AS MATERIALIZED (
    SELECT b.tenant_id, b.run_id, b.checkpoint_id, b.execution_id, b.graph_id, b.own_queue, b.build,
           farm.note_loss(b.lost_to, b.worker, b.attempts, farm.how_lost(b.worker),
             (SELECT count(*) FROM bad x WHERE x.status = 'leased' AND x.worker = b.worker) = 1 AND coalesce(w.lost, 1) = 0
             AND (SELECT count(*) FROM bad x) < p_limit AND NOT EXISTS (SELECT FROM advancing a WHERE a.worker = b.worker)
             AND (w.queues = '{quarantine}' OR NOT EXISTS (SELECT FROM moved))) AS lost_to
      FROM bad b LEFT JOIN farm.worker w ON w.worker = b.worker WHERE b.status = 'leased'),
  placed AS MATERIALIZED (
    SELECT n.*, farm.is_spent(n.lost_to, p_max) AS is_over,
           CASE WHEN farm.deaths(n.lost_to) < 2 THEN interval '0' ELSE interval '1 s' * least(power(2, farm.deaths(n.lost_to) - 2), 60) END AS delay,
           farm.deaths(n.lost_to) >= 2 AND n.own_queue <> 'quarantine' AND n.build = ANY (v_quarantines) AS is_suspect
      FROM noted n),
  again AS (
    UPDATE farm.node_execution e
       SET status = 'ready', fence = e.fence + 1, worker = NULL, available_at = clock_timestamp() + p.delay, publishes = 1,
           published_at = CASE WHEN p.is_over OR p.delay = interval '0' THEN clock_timestamp() END,
           lost_to = CASE WHEN p.is_suspect THEN jsonb_set(p.lost_to, '{-1,from}', to_jsonb(p.own_queue)) ELSE p.lost_to END,
           queue = CASE WHEN p.is_suspect THEN farm.at_build('quarantine', p.build) ELSE e.queue END
      FROM placed p
     WHERE e.tenant_id = p.tenant_id AND e.run_id = p.run_id AND e.checkpoint_id = p.checkpoint_id AND e.execution_id = p.execution_id
    RETURNING CASE WHEN p.is_over THEN 'bury' WHEN p.delay = interval '0' THEN 'again' ELSE 'later' END AS action,
              e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id, p.graph_id, e.node, e.queue),
  -- Nobody serves the quarantine any more: back to where it came from.
  home AS (
    UPDATE farm.node_execution e
       SET queue = farm.at_build(jsonb_path_query_array(b.lost_to, '$[*].from') ->> -1, b.build), publishes = 1,
           published_at = CASE WHEN e.available_at <= clock_timestamp() THEN clock_timestamp() END
      FROM bad b
     WHERE b.status = 'ready' AND NOT farm.is_spent(b.lost_to, p_max)
       AND e.tenant_id = b.tenant_id AND e.run_id = b.run_id AND e.checkpoint_id = b.checkpoint_id AND e.execution_id = b.execution_id
    RETURNING CASE WHEN e.published_at IS NULL THEN 'later' ELSE 'again' END AS action,
              e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id, b.graph_id, e.node, e.queue)
  SELECT a.action, a.tenant_id, a.run_id, a.checkpoint_id, a.execution_id, a.graph_id, a.node, a.queue FROM again a
  UNION ALL
  SELECT h.action, h.tenant_id, h.run_id, h.checkpoint_id, h.execution_id, h.graph_id, h.node, h.queue FROM home h
  UNION ALL
  SELECT 'bury', b.tenant_id, b.run_id, b.checkpoint_id, b.execution_id, b.graph_id, '', '' FROM bad b
   WHERE b.status = 'ready' AND farm.is_spent(b.lost_to, p_max);
END $$;

-- Executions whose message is overdue. Only finds: whether the queue is short enough to believe that it was lost is the caller's to judge.
--  why  unpublished: nobody has sent it since it was due | old: published p_age ago, twice that after a second time, and so on
--       held: no sibling is left that would let it go
--       soon: it is not overdue; it waits for its RetryPolicy's delay, which ends within p_ahead: in -age_seconds
--  p_share  so many old ones of a queue: the caller throws them away where the queue is long, and they must not hide the others. All queues
--           come to their first before one comes to its second
CREATE FUNCTION farm.ops_lost(p_age interval, p_ahead interval, p_share int, p_limit int)
RETURNS TABLE (why text, age_seconds float8, tenant_id uuid, run_id uuid, checkpoint_id uuid, execution_id uuid, queue text)
LANGUAGE sql STABLE SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  WITH overdue AS (
  SELECT CASE WHEN e.available_at > clock_timestamp() THEN 'soon' WHEN e.status = 'held' THEN 'held' WHEN e.published_at IS NULL OR e.published_at < e.available_at - interval '1 s' THEN 'unpublished' ELSE 'old' END AS why,
         extract(epoch FROM clock_timestamp() - coalesce(e.published_at, e.available_at))::float8 AS age_seconds,
         e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id, e.queue, e.available_at, e.publishes = 0 AND e.published_at IS NOT NULL AS is_unsent
    FROM farm.run r
    LEFT JOIN farm.thread_head h ON h.tenant_id = r.tenant_id AND h.thread_id = r.thread_id
    JOIN farm.node_execution e ON e.tenant_id = r.tenant_id AND e.run_id = r.run_id
                              AND e.checkpoint_id = ANY (ARRAY['00000000-0000-0000-0000-000000000000', h.head])
   WHERE r.status = 'running' AND e.available_at <= clock_timestamp() + p_ahead
     AND (e.status = 'ready' AND (e.published_at IS NULL OR e.published_at < e.available_at - interval '1 s'
                                  OR e.published_at < clock_timestamp() - p_age * power(2, least(greatest(e.publishes - 1, 0), 6)))
          OR e.status = 'held' AND e.available_at <= clock_timestamp() AND NOT EXISTS (SELECT FROM farm.node_execution o WHERE o.tenant_id = e.tenant_id AND o.run_id = e.run_id
                                                  AND o.checkpoint_id = e.checkpoint_id AND o.status IN ('ready', 'leased')))),
  -- Of a wave, those without a message wait for who works on the others.
  going AS MATERIALIZED (
  SELECT w.tenant_id, w.run_id, w.checkpoint_id
    FROM (SELECT DISTINCT o.tenant_id, o.run_id, o.checkpoint_id FROM overdue o WHERE o.is_unsent) w
   WHERE EXISTS (SELECT FROM farm.node_execution e WHERE e.tenant_id = w.tenant_id AND e.run_id = w.run_id AND e.checkpoint_id = w.checkpoint_id
                    AND e.status = 'leased')),
  placed AS (
  SELECT o.*, o.why = 'old' AS is_old, row_number() OVER (PARTITION BY o.why = 'old', o.queue ORDER BY o.available_at) AS place FROM overdue o
   WHERE NOT (o.is_unsent AND EXISTS (SELECT FROM going g WHERE g.tenant_id = o.tenant_id AND g.run_id = o.run_id AND g.checkpoint_id = o.checkpoint_id)))
  SELECT p.why, p.age_seconds, p.tenant_id, p.run_id, p.checkpoint_id, p.execution_id, p.queue FROM placed p
   WHERE NOT p.is_old OR p.place <= p_share
   ORDER BY p.is_old, p.place, p.available_at LIMIT p_limit $$;

-- Mark these as published now, and answer with those that nobody took in the meantime. Waits for nobody's row: who ends a run locks its
-- executions in another order.
--  p_due  these wait for a delay that ends now: only those that are due, and that no other healer has sent
CREATE FUNCTION farm.ops_publish(p_tenant uuid[], p_run uuid[], p_ckpt uuid[], p_exec uuid[], p_due boolean)
RETURNS TABLE (tenant_id uuid, run_id uuid, checkpoint_id uuid, execution_id uuid, graph_id text, node text, queue text)
LANGUAGE sql SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  WITH picked AS MATERIALIZED (
    SELECT e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id, run.graph_id
      FROM unnest(p_tenant, p_run, p_ckpt, p_exec) u(t, r, c, x) JOIN farm.run ON run.tenant_id = u.t AND run.run_id = u.r
      JOIN farm.node_execution e ON e.tenant_id = u.t AND e.run_id = u.r AND e.checkpoint_id = u.c AND e.execution_id = u.x
     WHERE e.status IN ('held', 'ready') AND (NOT p_due OR e.published_at IS NULL AND e.available_at <= clock_timestamp()) FOR UPDATE OF e SKIP LOCKED)
  UPDATE farm.node_execution e SET status = 'ready', published_at = clock_timestamp(), publishes = least(e.publishes + 1, 20)
    FROM picked p
   WHERE e.tenant_id = p.tenant_id AND e.run_id = p.run_id AND e.checkpoint_id = p.checkpoint_id AND e.execution_id = p.execution_id
  RETURNING e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id, p.graph_id, e.node, e.queue $$;

-- Threads on which runs wait and none runs: whoever ended the last one did not start the next.
CREATE FUNCTION farm.ops_waiting(p_limit int) RETURNS TABLE (tenant_id uuid, thread_id uuid) LANGUAGE sql STABLE AS $$
  SELECT DISTINCT r.tenant_id, r.thread_id FROM farm.run r
   WHERE r.status = 'pending' AND NOT EXISTS (SELECT FROM farm.run a WHERE a.tenant_id = r.tenant_id AND a.thread_id = r.thread_id AND a.status = 'running')
   LIMIT p_limit $$;

-- Supersteps that are complete, and that nobody advances or whose advancing worker is lost. As ops_sweep: again, or bury. The worker's row
-- counts what was lost with it, as note_loss does.
CREATE FUNCTION farm.ops_stalled(p_lease interval, p_max int, p_age interval, p_limit int)
RETURNS TABLE (action text, tenant_id uuid, run_id uuid, checkpoint_id uuid, graph_id text, queue text)
LANGUAGE sql SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  WITH bad AS MATERIALIZED (
    SELECT s.tenant_id, s.run_id, s.checkpoint_id, s.worker, r.graph_id, farm.at_build('', r.build) AS queue, farm.is_advance_spent(s.attempts, s.given_back, p_max) AS is_over
      FROM farm.run r JOIN farm.superstep s ON s.tenant_id = r.tenant_id AND s.run_id = r.run_id
     WHERE r.status = 'running' AND (s.published_at IS NULL OR s.published_at < clock_timestamp() - p_age)
       AND NOT EXISTS (SELECT FROM farm.thread_head h WHERE h.tenant_id = r.tenant_id AND h.thread_id = r.thread_id AND h.redis_run = r.run_id)
       AND NOT EXISTS (SELECT FROM farm.node_execution e WHERE e.tenant_id = s.tenant_id AND e.run_id = s.run_id AND e.checkpoint_id = s.checkpoint_id
                          AND (e.status IN ('held', 'ready', 'leased') OR s.worker IS NULL AND e.finished_at > clock_timestamp() - interval '1 s'))
       AND farm.is_lost(s.worker, p_lease)
     LIMIT p_limit FOR UPDATE OF s SKIP LOCKED),
  again AS (
    UPDATE farm.superstep s SET worker = NULL, fence = s.fence + 1, published_at = clock_timestamp()
      FROM bad b WHERE NOT b.is_over AND s.tenant_id = b.tenant_id AND s.run_id = b.run_id AND s.checkpoint_id = b.checkpoint_id
    RETURNING s.tenant_id, s.run_id, s.checkpoint_id, b.graph_id, b.queue),
  lost AS (UPDATE farm.worker w SET lost = w.lost + 1 WHERE w.worker IN (SELECT b.worker FROM bad b))
  SELECT 'again', a.tenant_id, a.run_id, a.checkpoint_id, a.graph_id, a.queue FROM again a
  UNION ALL
  SELECT 'bury', b.tenant_id, b.run_id, b.checkpoint_id, b.graph_id, b.queue FROM bad b WHERE b.is_over $$;

-- Runs that are over and whose stream nobody closed.
CREATE FUNCTION farm.ops_unannounced(p_age interval, p_limit int)
RETURNS TABLE (tenant_id uuid, run_id uuid, thread_id uuid, status text, forget_thread boolean) LANGUAGE sql STABLE AS $$
  SELECT r.tenant_id, r.run_id, r.thread_id, r.status, r.forget_thread FROM farm.run r
   WHERE r.finished_at IS NOT NULL AND r.announced_at IS NULL AND r.finished_at < clock_timestamp() - p_age
   ORDER BY r.finished_at LIMIT p_limit $$;

-- Stateless runs that were over, and said so, that long ago: their threads may go, unless a later run uses them.
CREATE FUNCTION farm.ops_forgettable(p_age interval, p_limit int)
RETURNS TABLE (tenant_id uuid, run_id uuid, thread_id uuid, status text, forget_thread boolean) LANGUAGE sql STABLE AS $$
  SELECT r.tenant_id, r.run_id, r.thread_id, r.status, r.forget_thread FROM farm.run r
   WHERE r.finished_at IS NOT NULL AND r.forget_thread AND r.announced_at IS NOT NULL AND r.finished_at < clock_timestamp() - p_age
     AND NOT EXISTS (SELECT FROM farm.run o WHERE o.tenant_id = r.tenant_id AND o.thread_id = r.thread_id AND o.run_id <> r.run_id AND NOT o.forget_thread)
     AND NOT EXISTS (SELECT FROM farm.run o WHERE o.tenant_id = r.tenant_id AND o.thread_id = r.thread_id AND o.status IN ('pending', 'running'))
   ORDER BY r.finished_at LIMIT p_limit $$;

-- Tenants whose store holds items that are over, of so many items that are over longest. Which ones is the tenant's own: farm.store_sweep.
CREATE FUNCTION farm.ops_expired(p_limit int) RETURNS TABLE (tenant_id uuid) LANGUAGE sql STABLE AS $$
  SELECT DISTINCT s.tenant_id FROM (SELECT i.tenant_id FROM farm.store_item i WHERE i.expires_at <= clock_timestamp() ORDER BY i.expires_at LIMIT p_limit) s $$;

-- Names of requests that are not looked for any more: about so many, those oldest. Answers how many.
CREATE FUNCTION farm.ops_forget_names(p_kept interval, p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE v_count int;
BEGIN
  DELETE FROM farm.idempotency_key k
   WHERE k.created_at <= (SELECT max(o.created_at) FROM (SELECT i.created_at FROM farm.idempotency_key i
                                                          WHERE i.created_at < clock_timestamp() - p_kept ORDER BY i.created_at LIMIT p_limit) o);
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END $$;

-- Threads whose time may be over. What becomes of each is decided under its lock, as its tenant.
CREATE FUNCTION farm.ops_expired_threads(p_limit int) RETURNS TABLE (tenant_id uuid, thread_id uuid) LANGUAGE sql STABLE AS $$
  SELECT t.tenant_id, t.thread_id FROM farm.thread t WHERE t.expires_at < clock_timestamp() ORDER BY t.expires_at LIMIT p_limit $$;

-- Runs that Redis moves, in the order in which they were begun: so many behind this one. NULL: from the first one on.
CREATE FUNCTION farm.ops_in_redis(p_after timestamptz, p_after_run uuid, p_limit int)
RETURNS TABLE (tenant_id uuid, thread_id uuid, run_id uuid, graph_id text, queue text, epoch bigint, entry bigint, started_seconds float8,
               started_at timestamptz)
LANGUAGE sql STABLE AS $$
  SELECT r.tenant_id, r.thread_id, r.run_id, r.graph_id, e.queue, h.epoch, h.entry, extract(epoch FROM clock_timestamp() - r.started_at)::float8, r.started_at
    FROM farm.run r JOIN farm.thread_head h ON h.tenant_id = r.tenant_id AND h.thread_id = r.thread_id AND h.redis_run = r.run_id
    JOIN farm.node_execution e ON e.tenant_id = r.tenant_id AND e.run_id = r.run_id AND e.execution_id = r.run_id
                              AND e.checkpoint_id = '00000000-0000-0000-0000-000000000000'
   WHERE r.status = 'running' AND (p_after IS NULL OR (r.started_at, r.run_id) > (p_after, p_after_run))
   ORDER BY r.started_at, r.run_id LIMIT p_limit $$;

-- Processes that live: who holds something and is not among them is dead, or silent.
CREATE FUNCTION farm.ops_living(p_lease interval) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
  SELECT w.worker FROM farm.worker w WHERE w.ended_at IS NULL AND w.beat_at > clock_timestamp() - p_lease $$;

-- What waits for the workers of each build, and how many of them live. Of what is open at the heads of active runs, as ops_lost sees it.
--  waiting, leased  node executions; pending: runs that wait for their thread
--  oldest_seconds   how long the oldest that is due has waited to be taken; 0 where none is
CREATE FUNCTION farm.ops_builds(p_lease interval)
RETURNS TABLE (build text, workers int, waiting int, leased int, pending int, oldest_seconds float8)
LANGUAGE sql STABLE SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  WITH alive AS (
    SELECT w.build, count(*)::int AS workers FROM farm.worker w
     WHERE w.ended_at IS NULL AND w.beat_at > clock_timestamp() - p_lease GROUP BY w.build),
  open AS (
    SELECT r.build, count(*) FILTER (WHERE e.status IN ('ready', 'held'))::int AS waiting, count(*) FILTER (WHERE e.status = 'leased')::int AS leased,
           coalesce(max(extract(epoch FROM clock_timestamp() - e.available_at)) FILTER (WHERE e.status = 'ready'), 0)::float8 AS oldest_seconds
      FROM farm.run r
      LEFT JOIN farm.thread_head h ON h.tenant_id = r.tenant_id AND h.thread_id = r.thread_id
      JOIN farm.node_execution e ON e.tenant_id = r.tenant_id AND e.run_id = r.run_id
                                AND e.checkpoint_id = ANY (ARRAY['00000000-0000-0000-0000-000000000000', h.head])
     WHERE r.status = 'running' AND e.status IN ('ready', 'held', 'leased') GROUP BY r.build),
  pending AS (SELECT r.build, count(*)::int AS pending FROM farm.run r WHERE r.status = 'pending' GROUP BY r.build),
  known AS (SELECT a.build FROM alive a UNION SELECT o.build FROM open o UNION SELECT p.build FROM pending p)
  SELECT k.build, coalesce(a.workers, 0), coalesce(o.waiting, 0), coalesce(o.leased, 0), coalesce(p.pending, 0), greatest(coalesce(o.oldest_seconds, 0), 0)
    FROM known k LEFT JOIN alive a ON a.build = k.build LEFT JOIN open o ON o.build = k.build LEFT JOIN pending p ON p.build = k.build
   ORDER BY k.build $$;

-- Give what waits for one build's workers to another's: so many runs at most. Answers how many runs and executions it has moved. Rows that
-- somebody holds right now are passed over, since who ends a run locks them in another order: call it until it answers 0.
CREATE FUNCTION farm.ops_move_build(p_from text, p_to text, p_limit int, OUT runs int, OUT executions int)
LANGUAGE plpgsql SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  WITH picked AS MATERIALIZED (
    SELECT e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id FROM farm.run r
      JOIN farm.node_execution e ON e.tenant_id = r.tenant_id AND e.run_id = r.run_id
     WHERE r.status = 'running' AND e.status IN ('ready', 'held', 'leased') AND split_part(e.queue, '@', 2) = p_from
     LIMIT p_limit FOR UPDATE OF e SKIP LOCKED)
  UPDATE farm.node_execution e
     SET queue = farm.at_build(split_part(e.queue, '@', 1), p_to), publishes = 1,
         published_at = CASE e.status WHEN 'ready' THEN NULL ELSE e.published_at END  -- the healer publishes it at once
    FROM picked p
   WHERE e.tenant_id = p.tenant_id AND e.run_id = p.run_id AND e.checkpoint_id = p.checkpoint_id AND e.execution_id = p.execution_id;
  GET DIAGNOSTICS executions = ROW_COUNT;
  WITH picked AS MATERIALIZED (
    SELECT r.tenant_id, r.run_id FROM farm.run r WHERE r.status IN ('pending', 'running') AND r.build = p_from
     LIMIT p_limit FOR UPDATE SKIP LOCKED)
  UPDATE farm.run r SET build = p_to FROM picked p WHERE r.tenant_id = p.tenant_id AND r.run_id = p.run_id;
  GET DIAGNOSTICS runs = ROW_COUNT;
END $$;

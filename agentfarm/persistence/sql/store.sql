-- LangGraph's store over farm.store_item and farm.store_vector: what is done in Postgres rather than in Python. Called in a transaction
-- that has its tenant (Database.transaction), by persistence/store*.py. May be run again: drops what it defines.
--
-- A namespace comes and goes as text, its labels joined by dots. '' is the prefix of all.
DO $$
DECLARE v_function regprocedure;
BEGIN
  FOR v_function IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'farm'::regnamespace AND p.proname LIKE 'store\_%' LOOP
    EXECUTE format('DROP ROUTINE %s', v_function);
  END LOOP;
END $$;

-- ------------------------------------------------------------------------------------------------ writing

CREATE FUNCTION farm.store_expiry(p_ttl float8) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
  SELECT clock_timestamp() + make_interval(secs => p_ttl * 60) $$;

-- Puts, and deletes where the value is NULL; each key once. In the order of the keys, so that two batches never wait for each other.
--  p_ttl      minutes, or NULL
--  p_of       which of the puts (1, 2, …) a vector belongs to; p_field, p_vector: what text of it, and the vector as text
-- A put replaces all vectors of its item: those of a text that is gone would find it for ever.
CREATE FUNCTION farm.store_put(p_namespace text[], p_key text[], p_value text[], p_ttl float8[], p_of int[], p_field text[], p_vector text[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE v record; v_now timestamptz; v_tenant uuid := farm.tenant();
BEGIN
  FOR v IN SELECT u.namespace, u.key, u.value, u.ttl, u.n FROM unnest(p_namespace, p_key, p_value, p_ttl) WITH ORDINALITY u(namespace, key, value, ttl, n)
            ORDER BY u.namespace COLLATE "C", u.key COLLATE "C" LOOP
    v_now := clock_timestamp();
    IF v.value IS NULL THEN
      DELETE FROM farm.store_item i WHERE i.tenant_id = v_tenant AND i.namespace = v.namespace AND i.key = v.key;
      CONTINUE WHEN NOT FOUND;  -- vectors that are seen from here on are of a put that came later
    ELSE
      INSERT INTO farm.store_item AS i (tenant_id, namespace, key, value, value_bytes, ttl_minutes, created_at, updated_at, expires_at)
      VALUES (v_tenant, v.namespace, v.key, v.value::jsonb, octet_length(v.value), v.ttl, v_now, v_now, farm.store_expiry(v.ttl))
      ON CONFLICT (tenant_id, namespace, key) DO UPDATE
        SET value = EXCLUDED.value, value_bytes = EXCLUDED.value_bytes, ttl_minutes = EXCLUDED.ttl_minutes,
            -- What is over was not there for anybody: an item put in its place is a new one.
            created_at = CASE WHEN i.expires_at <= EXCLUDED.updated_at THEN EXCLUDED.created_at ELSE i.created_at END,
            updated_at = greatest(clock_timestamp(), i.updated_at), expires_at = farm.store_expiry(EXCLUDED.ttl_minutes);
    END IF;
    -- The item's row is locked: vectors of two puts of one key do not mix.
    DELETE FROM farm.store_vector s WHERE s.tenant_id = v_tenant AND s.namespace = v.namespace AND s.key = v.key;
    INSERT INTO farm.store_vector (tenant_id, namespace, key, field, vector)
    SELECT v_tenant, v.namespace, v.key, u.field, u.vector::real[] FROM unnest(p_of, p_field, p_vector) u(of, field, vector) WHERE u.of = v.n;
  END LOOP;
END $$;

-- Who was read lives on for its ttl. Waits for nobody: who holds an item writes it, and sets when it is over.
CREATE FUNCTION farm.store_refresh(p_namespace text[], p_key text[]) RETURNS void LANGUAGE sql AS $$
  WITH free AS MATERIALIZED (
    SELECT i.namespace, i.key FROM unnest(p_namespace, p_key) u(namespace, key)
      JOIN farm.store_item i ON i.tenant_id = farm.tenant() AND i.namespace = u.namespace AND i.key = u.key
     WHERE i.ttl_minutes IS NOT NULL AND i.expires_at > clock_timestamp() FOR UPDATE OF i SKIP LOCKED)
  UPDATE farm.store_item i SET expires_at = farm.store_expiry(i.ttl_minutes)
    FROM free f WHERE i.tenant_id = farm.tenant() AND i.namespace = f.namespace AND i.key = f.key $$;

-- Remove what is over, so many at most. Returns how many there were.
CREATE FUNCTION farm.store_sweep(p_limit int) RETURNS int LANGUAGE sql AS $$
  WITH old AS MATERIALIZED (
    SELECT i.namespace, i.key FROM farm.store_item i WHERE i.tenant_id = farm.tenant() AND i.expires_at <= clock_timestamp()
     ORDER BY i.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED),
  vectors AS (
    DELETE FROM farm.store_vector s USING old o WHERE s.tenant_id = farm.tenant() AND s.namespace = o.namespace AND s.key = o.key),
  items AS (
    DELETE FROM farm.store_item i USING old o WHERE i.tenant_id = farm.tenant() AND i.namespace = o.namespace AND i.key = o.key RETURNING 1)
  SELECT count(*)::int FROM items $$;

-- ------------------------------------------------------------------------------------------------ reading

CREATE FUNCTION farm.store_ordered(p_op text, p_sign int) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE p_op WHEN '$gt' THEN p_sign > 0 WHEN '$gte' THEN p_sign >= 0 WHEN '$lt' THEN p_sign < 0 WHEN '$lte' THEN p_sign <= 0 END $$;

-- Whether a value passes a filter: [[path, operator, operand], …], all of which must hold (store_filters.py).
-- $eq and $ne as jsonb compares, numbers by their value. $gt, $gte, $lt, $lte: numbers with numbers, text with text by code point; what is of
-- another kind, or not there, passes none of the six, as in LangGraph's PostgresStore.
CREATE FUNCTION farm.store_passes(p_value jsonb, p_filter jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT coalesce(bool_and(coalesce(CASE c.op
      WHEN '$eq' THEN c.found = c.operand
      WHEN '$ne' THEN c.found <> c.operand
      ELSE CASE WHEN jsonb_typeof(c.found) IS DISTINCT FROM jsonb_typeof(c.operand) THEN false
                WHEN jsonb_typeof(c.operand) = 'number' THEN farm.store_ordered(c.op, sign((c.found)::numeric - (c.operand)::numeric)::int)
                ELSE farm.store_ordered(c.op, CASE WHEN c.found #>> '{}' = c.operand #>> '{}' THEN 0
                                                   WHEN (c.found #>> '{}') COLLATE "C" < (c.operand #>> '{}') COLLATE "C" THEN -1 ELSE 1 END) END
    END, false)), true)
    FROM (SELECT f -> 1 #>> '{}' AS op, f -> 2 AS operand, p_value #> ARRAY(SELECT jsonb_array_elements_text(f -> 0)) AS found
            FROM jsonb_array_elements(p_filter) f) c $$;

-- Of two vectors of length 1 the cosine of their angle: 1 is the same, 0 has nothing to do with it.
CREATE FUNCTION farm.store_cosine(p_one real[], p_other real[]) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT sum(u.a::float8 * u.b) FROM unnest(p_one, p_other) u(a, b) $$;

-- Whether a namespace begins (ends) with these labels, of which '*' stands for any one.
CREATE FUNCTION farm.store_matches(p_labels text[], p_end text, p_path text[]) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT cardinality(p_labels) >= cardinality(p_path) AND coalesce((
    SELECT bool_and(u.wanted = '*' OR u.label = u.wanted)
      FROM unnest(CASE p_end WHEN 'prefix' THEN p_labels[:cardinality(p_path)] ELSE p_labels[cardinality(p_labels) - cardinality(p_path) + 1:] END, p_path) u(label, wanted)), true) $$;

-- Namespaces in which something is, in the order of their labels. Jumps from each to the next, however many items lie between.
--  p_below  '' or a namespace: only those below it, and it
--  p_conditions  [[prefix or suffix, [label, …]], …], all of which must hold
CREATE FUNCTION farm.store_namespaces(p_below text, p_conditions jsonb, p_depth int, p_limit int, p_offset int) RETURNS SETOF text[] LANGUAGE sql STABLE AS $$
  WITH RECURSIVE found AS (
    (SELECT i.namespace FROM farm.store_item i WHERE i.tenant_id = farm.tenant() AND i.namespace >= p_below ORDER BY i.namespace LIMIT 1)
    UNION ALL
    SELECT (SELECT i.namespace FROM farm.store_item i WHERE i.tenant_id = farm.tenant() AND i.namespace > f.namespace ORDER BY i.namespace LIMIT 1)
      FROM found f WHERE f.namespace IS NOT NULL AND (p_below = '' OR f.namespace < p_below || '/')),
  labelled AS (
    SELECT f.namespace, string_to_array(f.namespace, '.') AS labels FROM found f
     WHERE f.namespace IS NOT NULL AND (p_below = '' OR f.namespace = p_below OR f.namespace >= p_below || '.' AND f.namespace < p_below || '/'))
  SELECT DISTINCT l.labels[:coalesce(p_depth, cardinality(l.labels))] AS labels FROM labelled l
   WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(p_conditions) c
                      WHERE NOT farm.store_matches(l.labels, c ->> 0, ARRAY(SELECT jsonb_array_elements_text(c -> 1))))
     AND EXISTS (SELECT FROM farm.store_item i WHERE i.tenant_id = farm.tenant() AND i.namespace = l.namespace
                    AND (i.expires_at IS NULL OR i.expires_at > clock_timestamp()))
   ORDER BY labels LIMIT p_limit OFFSET p_offset $$;

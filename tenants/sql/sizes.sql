-- How large the checkpoints of a thread are, for the admin, which may not read them. Run by migration 0002, as the owner.
-- As with keys: the owner is bound by row-level security, and sees the rows of the tenant that is asked for.

DROP POLICY IF EXISTS asked_for ON farm.checkpoint;
CREATE POLICY asked_for ON farm.checkpoint FOR SELECT TO CURRENT_USER
  USING (tenant_id = nullif(current_setting('farm.sizes_of', true), '')::uuid);

-- Newest first; bytes are of the row's own body, without the blobs that it refers to.
CREATE OR REPLACE FUNCTION farm.checkpoint_sizes(p_tenant uuid, p_thread uuid, p_limit int)
  RETURNS TABLE (checkpoint_id uuid, parent_id uuid, run_id uuid, step int, created_at timestamptz, bytes int, blobs int)
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('farm.sizes_of', p_tenant::text, true);
  RETURN QUERY
    SELECT c.checkpoint_id, c.parent_id, c.run_id, c.step, c.created_at, octet_length(c.body), coalesce(cardinality(c.refs), 0)
      FROM farm.checkpoint c
     WHERE c.tenant_id = p_tenant AND c.thread_id = p_thread AND c.ns = ''
     ORDER BY c.checkpoint_id DESC LIMIT p_limit;
  PERFORM set_config('farm.sizes_of', '', true);
END $$;

REVOKE ALL ON FUNCTION farm.checkpoint_sizes(uuid, uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION farm.checkpoint_sizes(uuid, uuid, int) TO farm_admin;

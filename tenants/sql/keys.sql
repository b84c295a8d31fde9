-- How the web process, which may read no control table, learns whose key it was shown. Run by migration 0002, as the owner.
-- The functions run as the owner, whom row-level security binds too (FORCE): the policy `asked_for` lets him see the one key
-- that is asked for, and nothing else.

DROP POLICY IF EXISTS asked_for ON tenants_apikey;
CREATE POLICY asked_for ON tenants_apikey TO CURRENT_USER
  USING (id = nullif(current_setting('farm.api_key', true), '')::uuid);

-- The key of this id if it is not revoked and its tenant is active: no row, or one. The hash is compared by the caller.
CREATE OR REPLACE FUNCTION farm.find_api_key(p_id uuid)
  RETURNS TABLE (hash bytea, tenant_id uuid, slug text, home text, run_ahead boolean, persistence text)
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('farm.api_key', p_id::text, true);
  RETURN QUERY
    SELECT k.hash, t.id, t.slug::text, t.home::text, t.run_ahead, t.persistence::text
      FROM public.tenants_apikey k JOIN public.tenants_tenant t ON t.id = k.tenant_id
     WHERE k.id = p_id AND k.revoked_at IS NULL AND t.is_active;
  PERFORM set_config('farm.api_key', '', true);
END $$;

-- A sample of when a key was used: at most one write a minute and key, however many processes tell.
CREATE OR REPLACE FUNCTION farm.mark_api_key_used(p_id uuid) RETURNS void
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('farm.api_key', p_id::text, true);
  UPDATE public.tenants_apikey k SET last_used_at = now()
   WHERE k.id = p_id AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute');
  PERFORM set_config('farm.api_key', '', true);
END $$;

-- The active tenant of this slug: no row, or one. For the anonymous tenant of development.
CREATE OR REPLACE FUNCTION farm.find_tenant(p_slug text)
  RETURNS TABLE (tenant_id uuid, slug text, home text, run_ahead boolean, persistence text)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.id, t.slug::text, t.home::text, t.run_ahead, t.persistence::text FROM public.tenants_tenant t WHERE t.slug = p_slug AND t.is_active
$$;

REVOKE ALL ON FUNCTION farm.find_api_key(uuid), farm.mark_api_key_used(uuid), farm.find_tenant(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION farm.find_api_key(uuid), farm.mark_api_key_used(uuid), farm.find_tenant(text) TO farm_app;

-- What the roles may do with the control tables. Run by migration 0002, as the owner; may be run again.
-- farm_admin is Django's: it sees every tenant, and the pages of the admin ask tenants/scoping.py. farm_app sees no table here.

GRANT USAGE ON SCHEMA public TO farm_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO farm_admin;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO farm_admin;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO farm_admin;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO farm_admin;
REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM farm_admin;
-- A tenant's data would stay behind without an owner, and a revoked key must stay revoked.
REVOKE DELETE ON tenants_tenant, tenants_apikey FROM farm_admin;
-- Local servers grant the app role tables of `public` as they are made; none of these is its business.
REVOKE ALL ON tenants_tenant, tenants_member, tenants_apikey, tenants_audit FROM farm_app, farm_ops, PUBLIC;

ALTER TABLE tenants_member ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE tenants_apikey ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE tenants_audit ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS admin ON tenants_member;
DROP POLICY IF EXISTS admin ON tenants_apikey;
DROP POLICY IF EXISTS admin ON tenants_audit;
CREATE POLICY admin ON tenants_member TO farm_admin USING (true) WITH CHECK (true);
CREATE POLICY admin ON tenants_apikey TO farm_admin USING (true) WITH CHECK (true);
CREATE POLICY admin ON tenants_audit TO farm_admin USING (true) WITH CHECK (true);

-- The audit is added to, by whomever: not even the owner rewrites it without taking the trigger away.
REVOKE UPDATE, DELETE ON tenants_audit FROM farm_admin;
CREATE OR REPLACE FUNCTION farm.refuse_to_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'rows of % are added and never changed', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
DROP TRIGGER IF EXISTS only_added_to ON tenants_audit;
DROP TRIGGER IF EXISTS never_emptied ON tenants_audit;
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON tenants_audit FOR EACH ROW EXECUTE FUNCTION farm.refuse_to_rewrite();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON tenants_audit FOR EACH STATEMENT EXECUTE FUNCTION farm.refuse_to_rewrite();

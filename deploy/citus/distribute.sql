-- Distributes TextLLM's tables over the nodes of a Citus cluster: docs/scale.md says what that brings, and what it costs.
--
-- Once, after `textllm db upgrade`, on the coordinator, as the role that owns the tables:
--
--     psql -X -v ON_ERROR_STOP=1 -d textllm -f deploy/citus/distribute.sql
--
-- The database needs `CREATE EXTENSION citus` first, on every node, and its nodes (`citus_add_node`). Rows that are
-- there already are moved; nobody may use the tables meanwhile. A table of a later version has its line here, too: run
-- that line by hand after the upgrade.

BEGIN;

-- A node knows nothing of what a session of the coordinator has set, so that the policies would hide every row: tenants
-- are then kept apart by the service's own statements alone, each of which names the tenant.
DO $$
DECLARE of_tenants regclass;
BEGIN
    FOR of_tenants IN SELECT DISTINCT polrelid::regclass FROM pg_policy WHERE polname = 'tenant'
    LOOP
        EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', of_tenants);
    END LOOP;
END $$;

-- A copy on every node: each request asks for a key, and says with it alone whose it is. Hardly ever written.
SELECT create_reference_table('api_keys');
SELECT create_reference_table('jobs');
SELECT create_reference_table('horizons');

-- All that a user has, on one shard: what a turn reads and writes. The tables with foreign keys after those they name.
SELECT create_distributed_table('conversations', 'user_id', colocate_with => 'none');
SELECT create_distributed_table('messages', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('message_words', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('responses', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('holds', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('ledger', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('sessions', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('daily_usage', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('estimates', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('erasures', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('reply_events', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('reply_ends', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('files', 'user_id', colocate_with => 'conversations');
SELECT create_distributed_table('rate_buckets', 'user_id', colocate_with => 'conversations');  -- stays UNLOGGED

-- A repeat may name no user: it is found by its key, which is a digest, and so lies on any shard.
SELECT create_distributed_table('idempotency_keys', 'key', colocate_with => 'none');

-- One row a tenant, which uploads and their removal write.
SELECT create_distributed_table('file_totals', 'tenant_id', colocate_with => 'none');

COMMIT;

"""On PostgreSQL each month of the ledger is a table of its own, which can go as a whole.

What is there becomes the part before the first month. Workers of the version before write into it beside the others,
for their ids say no time. Nobody is kept waiting: a check that holds for all its rows is proved beside the traffic, so
that the ledger itself is needed for a moment only.
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None
workers_go_on = True

_SHOWN = "current_setting('textllm.tenant', true)"  # as 0006 has it
_IS_SHOWN = f"CASE WHEN {_SHOWN} = '*' THEN true ELSE tenant_id = {_SHOWN} END"
_INDEXES = {
    "ix_ledger_response_id_tenant_id": "(response_id, tenant_id)",
    "ix_ledger_conversation_id_tenant_id": "(conversation_id, tenant_id)",
    "ix_ledger_payer_id_tenant_id": "(payer_id, tenant_id) WHERE payer_id IS NOT NULL",
}
_KEY = "PRIMARY KEY (tenant_id, user_id, response_id)"
_FIRST_ID = "'resp_t' || lpad(extract(epoch FROM {month} AT TIME ZONE 'UTC')::bigint::text, 10, '0')"

# The first month to have a table is the next one, or, where there are such ids already, which a version after this one
# has made before it was taken back, the one after them.
_CHECK = f"""
    DO $$
    DECLARE newest timestamptz := now();
    BEGIN
        SELECT greatest(newest, to_timestamp(max(substr(response_id, 7, 10))::bigint)) INTO newest
        FROM ledger WHERE response_id >= 'resp_t' AND response_id < 'resp_u';
        EXECUTE format(
            'ALTER TABLE ledger ADD CONSTRAINT ck_ledger_before CHECK (response_id < %L) NOT VALID',
            {_FIRST_ID.format(month="(date_trunc('month', newest AT TIME ZONE 'UTC') + interval '1 month')")}
        );
    END $$
"""  # noqa: S608 - joined from constants
_ATTACH = f"""
    DO $$
    DECLARE
        first_id text;
        month timestamp;
    BEGIN
        SELECT substring(pg_get_constraintdef(oid) FROM 'resp_t[0-9]+') INTO first_id
        FROM pg_constraint WHERE conname = 'ck_ledger_before' AND conrelid = 'ledger_before'::regclass;
        EXECUTE format(
            'ALTER TABLE ledger ATTACH PARTITION ledger_before FOR VALUES FROM (MINVALUE) TO (%L)', first_id
        );
        FOR ahead IN 0..2 LOOP
            month := to_timestamp(substr(first_id, 7)::bigint) AT TIME ZONE 'UTC' + ahead * interval '1 month';
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF ledger FOR VALUES FROM (%L) TO (%L)',
                'ledger_' || to_char(month, 'YYYY_MM'),
                {_FIRST_ID.format(month="month")}, {_FIRST_ID.format(month="(month + interval '1 month')")}
            );
        END LOOP;
    END $$
"""  # noqa: S608 - joined from constants
# The policies of the ledger bind whoever asks it; these bind whoever asks a part of it. Roles that may read the ledger
# may go on doing so.
_PROTECT = f"""
    DO $$
    DECLARE
        part regclass;
        may record;
    BEGIN
        FOR part IN SELECT inhrelid FROM pg_inherits
            WHERE inhparent = 'ledger'::regclass AND inhrelid <> 'ledger_before'::regclass
        LOOP
            EXECUTE format('CREATE POLICY tenant ON %s USING ({_IS_SHOWN.replace("'", "''")})', part);
            EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', part);
            EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', part);
        END LOOP;
        FOR may IN SELECT grantee, privilege_type FROM pg_class, aclexplode(relacl)
            WHERE oid = 'ledger_before'::regclass AND grantee <> relowner
        LOOP
            EXECUTE format(
                'GRANT %s ON ledger TO %s', may.privilege_type,
                CASE WHEN may.grantee = 0 THEN 'PUBLIC' ELSE may.grantee::regrole::text END
            );
        END LOOP;
    END $$
"""  # noqa: S608 - joined from constants


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    op.execute("ALTER TABLE ledger DROP CONSTRAINT IF EXISTS ck_ledger_before")  # of a try that was cut short
    op.execute(_CHECK)
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE ledger VALIDATE CONSTRAINT ck_ledger_before")
    op.execute("ALTER TABLE ledger RENAME TO ledger_before")
    for index in ("pk_ledger", "ix_ledger_day", *_INDEXES):
        op.execute(f"ALTER INDEX {index} RENAME TO {index.replace('ledger', 'ledger_before')}")
    op.execute("CREATE TABLE ledger (LIKE ledger_before INCLUDING DEFAULTS) PARTITION BY RANGE (response_id)")
    _finish("ledger")
    op.execute(_ATTACH)
    op.execute("ALTER TABLE ledger_before DROP CONSTRAINT ck_ledger_before")
    op.execute("CREATE TABLE ledger_default PARTITION OF ledger DEFAULT")
    op.execute("CREATE INDEX ix_ledger_default_day ON ledger_default (day)")
    op.execute(_PROTECT)


def downgrade() -> None:
    """Copies the ledger, and keeps it from all others until that is done."""
    if op.get_context().dialect.name != "postgresql":
        return
    op.execute("LOCK TABLE ledger")
    op.execute("CREATE TABLE ledger_whole (LIKE ledger INCLUDING DEFAULTS)")
    op.execute("INSERT INTO ledger_whole SELECT * FROM ledger")
    op.execute("DROP TABLE ledger")
    op.execute("ALTER TABLE ledger_whole RENAME TO ledger")
    _finish("ledger")
    op.execute("CREATE INDEX ix_ledger_day ON ledger USING brin (day)")


def _finish(table: str) -> None:
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} {_KEY}")
    for name, columns in _INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {table} {columns}")
    op.execute(f"CREATE POLICY tenant ON {table} USING ({_IS_SHOWN})")
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")  # for its owner, too

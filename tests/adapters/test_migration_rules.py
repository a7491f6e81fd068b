"""What steps do to large tables while workers go on using them."""

import re
from collections.abc import Iterator
from io import StringIO

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import Script, ScriptDirectory

from textllm_adapters.sql import migrations

LARGE = {"conversations", "ledger", "message_words", "messages"}  # a row for each turn or conversation, for years
BEFORE_THE_RULE = {"0007", "0008"}
NAME = r"(?:IF (?:NOT )?EXISTS )?(?:ONLY )?(?:public\.)?\"?(\w+)"
LONG = [  # what reads or writes all of a table, and keeps its lock until then
    rf"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).*? ON {NAME}",
    rf"REINDEX (?:TABLE|INDEX) (?!CONCURRENTLY){NAME}",
    rf"ALTER TABLE {NAME}.* ADD (?!COLUMN)(?!.*(?:NOT VALID|USING INDEX))",
    rf"ALTER TABLE {NAME}.* ADD COLUMN .*(?: UNIQUE| PRIMARY KEY| CHECK| REFERENCES| GENERATED| IDENTITY|\w\(\))",
    rf"ALTER TABLE {NAME}.* ALTER (?:COLUMN )?\S+ (?:SET NOT NULL|(?:SET DATA )?TYPE )",
    rf"(?:UPDATE|DELETE FROM|CLUSTER|VACUUM|LOCK TABLE|LOCK) {NAME}",
]
BREAKING = [  # what statements of the version before do not survive
    rf"ALTER TABLE {NAME}.* (?:DROP COLUMN|RENAME|DROP DEFAULT|SET NOT NULL)",
    rf"ALTER TABLE {NAME}.* ADD COLUMN (?!.* DEFAULT ).* NOT NULL",
    rf"DROP TABLE {NAME}",
]
STEPS = list(ScriptDirectory(str(migrations.migrations_path())).walk_revisions())[::-1]


def statements_of(step: Script) -> list[str]:
    """What it says to PostgreSQL."""
    written = StringIO()
    options = {"as_sql": True, "output_buffer": written}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context):
        step.module.upgrade()
    return [" ".join(one.split()) for one in written.getvalue().split(";\n")]


def tables_hit(statements: list[str], patterns: list[str]) -> Iterator[str]:
    """The tables to which one of the statements does something of that kind, unless it was made by one before it.

    What gives its name to a table that the same step makes in its place counts for nothing, too.
    """
    made: set[str] = set()
    for number, statement in enumerate(statements):
        if (given := re.match(rf"ALTER TABLE {NAME} RENAME TO ", statement, re.IGNORECASE)) is not None and any(
            re.match(rf"CREATE TABLE {given[1]} ", later, re.IGNORECASE) for later in statements[number:]
        ):
            continue
        if (found := re.match(rf"CREATE (?:UNLOGGED )?TABLE {NAME}", statement, re.IGNORECASE)) is not None:
            made.add(found[1])
        for pattern in patterns:
            found = re.match(pattern, statement, re.IGNORECASE)
            if found is not None and found[1] not in made:
                yield found[1]


def test_no_step_keeps_a_large_table_from_its_users_for_long() -> None:
    """Indexes: `textllm_adapters.sql.indexes.add_index`. Constraints: NOT VALID, and VALIDATE in a later step."""
    long = {step.revision for step in STEPS if LARGE & set(tables_hit(statements_of(step), LONG))}
    assert long == BEFORE_THE_RULE


def test_steps_that_workers_of_the_version_before_do_not_survive_say_so() -> None:
    """`workers_go_on = False`. Better: what goes is left out by one version, and dropped by the next."""
    breaking = {step.revision for step in STEPS if list(tables_hit(statements_of(step), BREAKING))}
    said = {step.revision for step in STEPS if not step.module.workers_go_on}
    assert BEFORE_THE_RULE | breaking <= said


@pytest.mark.parametrize(
    ("statement", "is_long", "breaks"),
    [
        ("CREATE INDEX ix ON messages (id)", True, False),
        ("CREATE UNIQUE INDEX ix ON ONLY ledger (id)", True, False),
        ("CREATE INDEX IF NOT EXISTS ix ON public.ledger (id)", True, False),
        ("CREATE INDEX CONCURRENTLY ix ON messages (id)", False, False),
        ("CREATE INDEX ix ON api_keys (id)", False, False),
        ("ALTER TABLE ledger ADD CONSTRAINT c CHECK (cost >= 0)", True, False),
        ("ALTER TABLE ledger ADD CONSTRAINT c CHECK (cost >= 0) NOT VALID", False, False),
        ("ALTER TABLE ledger ADD CONSTRAINT c UNIQUE USING INDEX ix", False, False),
        ("ALTER TABLE ledger ADD UNIQUE (id)", True, False),
        ("ALTER TABLE ledger VALIDATE CONSTRAINT c", False, False),
        ("ALTER TABLE ledger ADD COLUMN x INTEGER", False, False),
        ("ALTER TABLE ledger ADD COLUMN x INTEGER DEFAULT 0 NOT NULL", False, False),
        ("ALTER TABLE ledger ADD COLUMN x INTEGER NOT NULL", False, True),
        ("ALTER TABLE ledger ADD COLUMN x TIMESTAMP DEFAULT now() NOT NULL", True, False),
        ("ALTER TABLE ledger ALTER COLUMN x TYPE BIGINT", True, False),
        ("ALTER TABLE ledger ALTER COLUMN x SET NOT NULL", True, True),
        ("ALTER TABLE ledger DROP COLUMN x", False, True),
        ("ALTER TABLE holds RENAME x TO y", False, True),
        ("DROP TABLE jobs", False, True),
        ("UPDATE messages SET estimated = false", True, False),
        ("UPDATE jobs SET due_at = NULL", False, False),
    ],
)
def test_the_rules_know_such_statements(statement: str, is_long: bool, breaks: bool) -> None:
    assert bool(LARGE & set(tables_hit([statement], LONG))) is is_long
    assert bool(list(tables_hit([statement], BREAKING))) is breaks


def test_what_a_step_does_to_a_table_of_its_own_hurts_nobody() -> None:
    statements = [
        "CREATE TABLE ledger (id INTEGER)",
        "CREATE INDEX ix ON ledger (id)",
        "CREATE INDEX ix ON messages (id)",
    ]
    assert list(tables_hit(statements, LONG)) == ["messages"]

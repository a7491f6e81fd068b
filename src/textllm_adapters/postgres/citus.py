"""Citus, which spreads the tables over nodes (`deploy/citus/distribute.sql`): what has to be said to it otherwise.

It locks no rows on many shards. So whoever leases some says once more in the update which ones are due: where two lease
the same, the second finds them leased. And it makes a plan anew for each set of values, since those say which shards.
"""

import re
from typing import Final

HAS_CITUS: Final = "EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus')"
# It hides its shards in the catalogue, and looks at each row there for that: asyncpg, which asks for types once in each
# connection, waits for seconds.
SHOW_SHARDS: Final = "SET citus.override_table_visibility = off"
_LOCKS: Final = re.compile(r"\s+FOR UPDATE(?: OF \w+)? SKIP LOCKED")


def without_locks(sql: str) -> str:
    """The statement, which passes over no row that somebody else has locked."""
    return _LOCKS.sub("", sql)

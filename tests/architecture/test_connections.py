"""Whoever wants a connection names the tenant whose rows it shall show."""

import re
from pathlib import Path

import textllm_adapters.sql

ADAPTERS = Path(textllm_adapters.sql.__path__[0]).parent


def test_one_file_alone_takes_connections_from_the_pool() -> None:
    opening = re.compile(r"\.(connect|begin)\(\)")
    files = [path for path in ADAPTERS.rglob("*.py") if opening.search(path.read_text())]
    assert files == [ADAPTERS / "sql" / "database.py"]

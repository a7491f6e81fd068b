"""Their exceptions in, ours out, by table."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

# A row makes our error of theirs, or None where that very error is a bug of ours and stays as it is.
ErrorTable: TypeAlias = Mapping[type[Exception], Callable[[Any], Exception | None]]


@contextmanager
def translated(table: ErrorTable) -> Iterator[None]:
    """Raise what `table` makes of an exception in the block, `from` the original.

    The most specific row wins; exceptions without a row pass as they are.
    """
    try:
        yield
    except Exception as theirs:
        ours = _translation(theirs, table)
        if ours is None:
            raise
        raise ours from theirs


def _translation(theirs: Exception, table: ErrorTable) -> Exception | None:
    for kind in type(theirs).__mro__:
        if kind in table:
            return table[kind](theirs)
    return None

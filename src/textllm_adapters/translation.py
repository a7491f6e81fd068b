"""Their exceptions in, ours out, by table."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeAlias

# A row makes our error of theirs, or None where that very error is a bug of ours and stays as it is.
ErrorTable: TypeAlias = Mapping[type[Exception], Callable[[Any], Exception | None]]


class translated:  # noqa: N801 - called as `contextlib.suppress` is
    """Raise what `table` makes of an exception in the block, `from` the original.

    The most specific row wins; exceptions without a row pass as they are.
    """

    __slots__ = ("_table",)

    def __init__(self, table: ErrorTable) -> None:
        self._table = table

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, theirs: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(theirs, Exception) and (ours := _translation(theirs, self._table)) is not None:
            raise ours from theirs


def _translation(theirs: Exception, table: ErrorTable) -> Exception | None:
    for kind in type(theirs).__mro__:
        if kind in table:
            return table[kind](theirs)
    return None

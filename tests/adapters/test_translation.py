"""Foreign exceptions leave as ours, by table."""

from collections.abc import AsyncGenerator

import pytest

from textllm_adapters.translation import ErrorTable, translated
from textllm_core.errors import ProviderError, ProviderUnavailableError, StorageUnavailableError

TABLE: ErrorTable = {
    OSError: lambda _: StorageUnavailableError(),
    ConnectionError: lambda _: ProviderUnavailableError("down"),
    ValueError: lambda error: ProviderError(str(error)) if str(error) else None,
}


def test_a_subclass_without_a_row_takes_the_row_of_its_base() -> None:
    with pytest.raises(StorageUnavailableError), translated(TABLE):
        raise FileNotFoundError


def test_the_most_specific_row_wins() -> None:
    with pytest.raises(ProviderUnavailableError), translated(TABLE):
        raise ConnectionResetError


def test_the_original_is_the_cause() -> None:
    theirs = OSError("disk")
    with pytest.raises(StorageUnavailableError) as caught, translated(TABLE):
        raise theirs
    assert caught.value.__cause__ is theirs


@pytest.mark.parametrize("bug", [KeyError("x"), ValueError()])
def test_what_no_row_translates_stays_as_it_is(bug: Exception) -> None:
    with pytest.raises(type(bug)) as caught, translated(TABLE):
        raise bug
    assert caught.value is bug
    assert caught.value.__cause__ is None


async def test_a_generator_closed_inside_the_block_just_ends() -> None:
    async def numbers() -> AsyncGenerator[int, None]:
        with translated(TABLE):
            yield 1
            yield 2

    stream = numbers()
    assert await anext(stream) == 1
    await stream.aclose()
    assert [number async for number in stream] == []

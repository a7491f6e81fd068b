"""Who asks: a tenant, and whoever pays for users whom nobody named."""

import pytest

from textllm_core import Caller
from textllm_core.errors import InvalidRequestError


@pytest.mark.parametrize("text", ["", "a\0", "\0", "\ud800", "a\udfff", "x" * 256])
@pytest.mark.parametrize("field", ["tenant_id", "id"])
def test_a_caller_is_named_by_what_every_database_keeps_as_it_is(field: str, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{field.removesuffix('_id')}: must be 1 to 255"):
        Caller(**{field: text})  # type: ignore[arg-type]  # both are texts


def test_no_tenant_is_called_as_all_of_them_are_in_databases() -> None:
    with pytest.raises(InvalidRequestError, match=r"tenant: must not be \*"):
        Caller("*")


def test_a_tenant_may_be_named_in_any_script() -> None:
    for name in ("Größe & Söhne / 2", "会社", "org:42", "a\u0301", "\U0001f600", "x" * 255):
        assert Caller(name, id=name).tenant_id == name

"""Every failure the core can state has a status for clients of the server and an exit code for scripts."""

from collections.abc import Iterator

from textllm_cli.exit_codes import EXIT_CODES
from textllm_core import errors
from textllm_core.errors import TextLLMError
from textllm_core.problem_details import STATUS


def descendants(kind: type[TextLLMError]) -> Iterator[type[TextLLMError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def test_every_error_has_a_status_and_an_exit_code() -> None:
    leaves = {kind for kind in descendants(TextLLMError) if kind.__module__.startswith("textllm_core.errors.")}
    leaves = {kind for kind in leaves if not kind.__subclasses__() or "code" in vars(kind)}
    assert leaves <= STATUS.keys()
    assert leaves <= EXIT_CODES.keys()


def test_the_page_of_errors_has_them_all() -> None:
    ours = {kind.__name__ for kind in descendants(TextLLMError) if kind.__module__.startswith("textllm_core.errors.")}
    assert {"TextLLMError", *ours} <= set(errors.__all__)


def test_no_two_errors_share_a_code() -> None:
    kinds = [kind for kind in descendants(TextLLMError) if "code" in vars(kind)]
    assert len({kind.code for kind in kinds}) == len(kinds)

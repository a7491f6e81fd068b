"""The public API of the core is what `__all__` says, sorted, and nothing else."""

import textllm_core


def test_all_is_sorted_and_complete() -> None:
    public = {
        name
        for name, value in vars(textllm_core).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("textllm_core.")
    }
    assert textllm_core.__all__ == sorted(textllm_core.__all__)
    assert set(textllm_core.__all__) == public | {"ReplyEvent"}

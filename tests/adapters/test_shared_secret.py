"""One secret for all workers of a machine."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from textllm_adapters.filesystem.secrets import shared_secret
from textllm_core.errors import ConfigurationError


def test_all_who_come_at_once_get_the_same_secret(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    with ThreadPoolExecutor(16) as threads:
        secrets = set(threads.map(shared_secret, [path] * 64))
    assert [len(secret) for secret in secrets] == [32]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_no_two_places_have_the_same_secret(tmp_path: Path) -> None:
    assert shared_secret(tmp_path / "a") != shared_secret(tmp_path / "b")


def test_a_damaged_secret_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="delete the file"):
        shared_secret(tmp_path / "secret")


def test_a_place_that_cannot_be_used_is_pointed_out() -> None:
    with pytest.raises(ConfigurationError, match="/dev/null/secret"):
        shared_secret(Path("/dev/null/secret"))

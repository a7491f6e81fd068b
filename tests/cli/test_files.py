"""`textllm files`, over files in memory."""

import json
import os
from pathlib import Path

import pytest
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run

FIELDS = ["success", "key", "url", "size", "content_type", "sha256", "created_at"]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"one\ntwo\n")
    return path


@pytest.fixture
def key(run: Run, notes: Path) -> str:
    return str(run("files", "upload", str(notes), "--user", "ada").stdout.strip())


def test_uploads_print_their_keys(run: Run, notes: Path, tmp_path: Path) -> None:
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.7")
    result = run("files", "upload", str(notes), str(tmp_path / "b.pdf"))
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith("LLM/uploads/cli/")
    assert first.endswith("_notes.txt")
    assert second.endswith("_b.pdf")


def test_json_is_a_file_as_rest_has_it(run: Run, notes: Path) -> None:
    shown = json.loads(run("files", "upload", str(notes), "--json").stdout)
    assert list(shown) == FIELDS
    assert (shown["size"], shown["content_type"]) == (8, "text/plain")
    listed = json.loads(run("files", "list", "--json").stdout)
    assert (list(listed), [list(file) for file in listed["data"]]) == (["data", "has_more"], [FIELDS])


def test_files_are_listed_for_their_user_newest_first(run: Run, notes: Path, key: str) -> None:
    newer = run("files", "upload", str(notes), "--user", "ada").stdout.strip()
    lines = run("files", "list", "--user", "ada").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["key", newer, key]
    cut = run("files", "list", "--user", "ada", "--limit", "1")
    assert len(cut.stdout.splitlines()) == 2
    assert cut.stderr == f"there are more; --after {newer} shows them\n"
    rest = run("files", "list", "--user", "ada", "--after", newer)
    assert [line.split()[0] for line in rest.stdout.splitlines()] == ["key", key]
    assert len(run("files", "list").stdout.splitlines()) == 1


def test_a_download_has_the_name_it_came_with_and_replaces_nothing_by_itself(
    run: Run, key: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_bytes(b"mine")
    refused = run("files", "download", key)
    assert (refused.exit_code, (tmp_path / "notes.txt").read_bytes()) == (4, b"mine")
    (tmp_path / "notes.txt").unlink()
    assert run("files", "download", key).stdout == "notes.txt\n"
    assert (tmp_path / "notes.txt").read_bytes() == b"one\ntwo\n"
    named = tmp_path / "other"
    named.write_bytes(b"old")
    assert run("files", "download", key, "-o", str(named)).exit_code == 0
    assert named.read_bytes() == b"one\ntwo\n"
    assert {path.name for path in tmp_path.iterdir()} <= {"notes.txt", "other", "data", "logs"}


@pytest.mark.parametrize("folder", ["kept", "kept/"])
def test_a_download_into_a_folder_has_its_own_name_and_replaces_nothing(
    run: Run, key: str, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "kept").mkdir()
    assert run("files", "download", key, "-o", folder).stdout == "kept/notes.txt\n"
    assert (tmp_path / "kept" / "notes.txt").read_bytes() == b"one\ntwo\n"
    (tmp_path / "kept" / "notes.txt").write_bytes(b"mine")
    refused = run("files", "download", key, "-o", folder)
    assert (refused.exit_code, "kept/notes.txt is there already" in refused.stderr) == (4, True)
    assert [path.read_bytes() for path in (tmp_path / "kept").iterdir()] == [b"mine"]


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("lost/", "There is no folder lost."),
        ("lost/new", "There is no folder lost."),
        ("notes.txt/new", "There is no folder notes.txt."),
        ("pipe", "pipe is no regular file; -o - writes to stdout."),
        ("x" * 255 + "y", "x" * 255 + "y cannot be written: File name too long."),
    ],
)
def test_where_nothing_can_be_written_is_said_with_its_path(
    run: Run, key: str, tmp_path: Path, output: str, told: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = {path.name for path in tmp_path.iterdir()}
    result = run("files", "download", key, "-o", output)
    assert (result.exit_code, result.stdout, result.stderr) == (4, "", f"error: {told}\n")
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_download_can_go_to_stdout(run: Run, key: str) -> None:
    assert run("files", "download", key, "-o", "-").stdout_bytes == b"one\ntwo\n"


def test_a_download_that_fails_leaves_nothing(run: Run, key: str, wiring: MemoryWiring, tmp_path: Path) -> None:
    wiring.blobs._blobs.clear()
    assert run("files", "download", key, "-o", str(tmp_path / "new")).exit_code == 3
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []
    assert not (tmp_path / "new").exists()


def test_a_deleted_file_is_gone(run: Run, key: str) -> None:
    assert run("files", "delete", key).stdout == f"deleted {key}\n"
    for command in ("delete", "download"):
        result = run("files", command, key, "--json")
        assert (result.exit_code, json.loads(result.stderr)["code"]) == (3, "file_not_found")


def test_what_is_no_file_has_exit_code_2(run: Run, tmp_path: Path) -> None:
    assert run("files", "upload", str(tmp_path / "none")).exit_code == 2
    assert run("files", "upload", str(tmp_path)).exit_code == 2


def test_a_file_that_is_too_large_has_exit_code_4(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(20 * 1024 * 1024 + 1)
    result = run("files", "upload", str(tmp_path / "large"), "--json")
    assert (result.exit_code, json.loads(result.stderr)["code"]) == (4, "file_too_large")


def test_of_several_files_the_refused_one_is_named_and_those_that_were_not_tried(run: Run, tmp_path: Path) -> None:
    for name in ("a.txt", "c.md", "d.md"):
        (tmp_path / name).write_text("short")
    with (tmp_path / "big.txt").open("wb") as file:
        file.truncate(20 * 1024 * 1024 + 1)
    result = run("files", "upload", "a.txt", "big.txt", "c.md", "d.md")
    assert (result.exit_code, result.stdout.count("\n")) == (4, 1)
    assert result.stderr.endswith("This is about big.txt; not tried: c.md, d.md.\n")
    told = json.loads(run("files", "upload", "a.txt", "big.txt", "--json").stderr)
    assert (told["code"], told["limit"]) == ("file_too_large", 20 * 1024 * 1024)
    assert told["detail"].endswith("This is about big.txt.")


def test_of_several_files_none_is_kept_where_one_is_no_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short")
    os.mkfifo(tmp_path / "pipe")
    result = run("files", "upload", "a.txt", "pipe")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith("error: pipe is no regular file")


def test_a_problem_as_json_may_name_a_file_whose_name_is_no_text(run: Run, key: str) -> None:
    result = run("files", "download", key, "-o", "lost\udcff/new", "--json")
    assert (result.exit_code, json.loads(result.stderr)["detail"]) == (4, "There is no folder lost?.")

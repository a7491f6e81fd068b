"""`textllm ask -i` and `-f`, and `/image` and `/file` in a chat: files of this machine as parts of a turn."""

import json
import os
from pathlib import Path

import pytest
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run
from tests.image_files import gif, png

from textllm_adapters.memory.llm import ScriptedReply

SAYS = [ScriptedReply(text="A cat.")]
PNG, GIF = png(64, 48), gif(8, 8)


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """Some, in the working directory."""
    (tmp_path / "cat.png").write_bytes(PNG)
    (tmp_path / "my cat's.gif").write_bytes(GIF)
    (tmp_path / "notes.txt").write_text("Tea is at five.")
    (tmp_path / "fake.png").write_text("no image")


def kept(wiring: MemoryWiring) -> list[bytes]:
    """What was stored, in the order in which it came."""
    blobs = wiring.blobs._blobs
    return [blobs[key] for _, _, key in wiring.store.files]


def test_an_image_is_asked_about_and_the_answer_alone_is_printed(run: Run, wiring: MemoryWiring) -> None:
    result = run("ask", "What is it?", "-i", "cat.png", says=SAYS)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "A cat.\n", "")
    assert kept(wiring) == [PNG]


def test_several_images_are_one_turn(run: Run, wiring: MemoryWiring) -> None:
    reply = json.loads(run("ask", "Compare", "-i", "cat.png", "--image", "my cat's.gif", "--json").stdout)
    assert (reply["image_count"], len(reply["image_urls"]), reply["message_number"]) == (2, 2, 1)
    assert kept(wiring) == [PNG, GIF]


@pytest.mark.parametrize("options", [["--no-stream"], []])
def test_a_document_is_asked_about(run: Run, options: list[str]) -> None:
    result = run("ask", "When?", "-f", "notes.txt", *options)
    assert (result.exit_code, result.stdout) == (0, "[0] You said: When?\n\nFile notes.txt:\n\nTea is at five.\n")


def test_json_is_the_wire_shape_of_a_turn_with_a_document(run: Run) -> None:
    reply = json.loads(run("ask", "When?", "--file", "notes.txt", "--json").stdout)
    assert list(reply)[-2:] == ["file_url", "file_type"]
    assert reply["file_type"] == ".txt"


def test_the_question_may_be_piped_in(run: Run) -> None:
    result = run("ask", "-f", "notes.txt", stdin="When?\n")
    assert result.stdout.startswith("[0] You said: When?\n\nFile notes.txt")
    assert run("ask", "-f", "notes.txt", stdin="").exit_code == 2


def test_a_conversation_goes_on_with_a_file(run: Run) -> None:
    first = json.loads(run("ask", "Hi", "--json").stdout)
    for more in (["-c", first["conversation_id"], "-i", "cat.png"], ["--continue", "-f", "notes.txt"]):
        reply = json.loads(run("ask", "And this?", "--json", *more).stdout)
        assert reply["conversation_id"] == first["conversation_id"]
    assert reply["message_number"] == 3


def test_a_file_that_is_not_there_is_named(run: Run, wiring: MemoryWiring) -> None:
    for option in ("-i", "-f"):
        result = run("ask", "What is it?", option, "lost.png")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "lost.png" in result.stderr
    assert not wiring.store.entries


def test_what_is_no_regular_file_is_said_to_be_none_where_it_is_to_be_kept(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = run("files", "upload", "pipe")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == "error: pipe is no regular file; save what comes from it in one, and give that.\n"


def test_a_document_may_come_from_a_process_as_shells_write_it(run: Run) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"Tea is at six.")
    os.close(writing)
    result = run("ask", "When?", "-f", f"/dev/fd/{reading}")
    os.close(reading)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("Tea is at six.\n")


def test_a_document_may_be_piped_in_and_is_no_part_of_the_question_then(run: Run) -> None:
    result = run("ask", "When?", "-f", "-", stdin="Tea is at six.")
    assert result.stdout == "[0] You said: When?\n\nFile stdin.txt:\n\nTea is at six.\n"


def test_several_documents_and_images_are_one_turn(run: Run, wiring: MemoryWiring, tmp_path: Path) -> None:
    (tmp_path / "more.md").write_text("# Cake")
    options = ["-f", "notes.txt", "-i", "cat.png", "-f", "more.md"]
    reply = json.loads(run("ask", "Compare", *options, "--json").stdout)
    assert (len(reply["file_urls"]), reply["image_count"], reply["message_number"]) == (2, 1, 1)
    assert kept(wiring) == [b"Tea is at five.", b"# Cake", PNG]


def test_what_is_no_image_is_refused_and_not_kept(run: Run, wiring: MemoryWiring) -> None:
    result = run("ask", "What is it?", "-i", "cat.png", "-i", "fake.png", "--json")
    assert (result.exit_code, result.stdout) == (4, "")
    assert json.loads(result.stderr)["code"] == "unsupported_media_type"
    assert kept(wiring) == []


def test_of_several_images_the_refused_one_is_told_by_its_place(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "long.png").open("wb") as file:
        file.truncate(20 * 1024 * 1024 + 1)
    (tmp_path / "wide.png").write_bytes(png(100_000, 100_000))
    for name in ("fake.png", "long.png", "wide.png"):
        result = run("ask", "What is it?", "-i", "cat.png", "-i", name, "-i", "my cat's.gif")
        assert (result.exit_code, result.stdout) == (4, "")
        assert result.stderr.startswith("error: Image 2 of 3: ")
        assert "Image" not in run("ask", "What is it?", "-i", name).stderr


@pytest.mark.parametrize("path", ['"my cat\'s.gif"', "my\\ cat\\'s.gif"])
def test_a_chat_takes_images_and_documents_and_remembers_them(run: Run, wiring: MemoryWiring, path: str) -> None:
    says = [ScriptedReply(text=text) for text in ("A cat.", "At five.", "Yes.")]
    stdin = f"/image {path} What is it?\n/file notes.txt\nreally?\n/history\n"
    result = run("chat", stdin=stdin, says=says)
    image, document = (key for _, _, key in wiring.store.files)
    assert result.stdout == (
        "A cat.\nAt five.\nYes.\n"
        f"you: What is it?\n  image my cat's.gif: {image}\nmodel: A cat.\n"
        f"you: Summarize this document.\n  document notes.txt: {document}\nmodel: At five.\n"
        "you: really?\nmodel: Yes.\n"
    )
    assert kept(wiring) == [GIF, b"Tea is at five."]
    (conversation,) = wiring.store.conversations.values()
    assert conversation.conversation.message_count == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/image", "/image PATH [TEXT]"),
        ("/file lost.pdf What?", "There is no file lost.pdf."),
        ("/file .", ". is a directory."),
        ("/file /dev/null What?", "/dev/null is no regular file"),
        ('/image "cat.png', "never closed"),
        ("/image fake.png", "error: "),
        ("/images cat.png", None),
    ],
)
def test_a_chat_goes_on_after_a_file_that_cannot_be_taken(run: Run, line: str, told: str | None) -> None:
    result = run("chat", stdin=f"{line}\nhello\n")
    assert result.exit_code == 0
    assert result.stdout.endswith("You said: hello\n")
    assert told is None or told in result.stderr


def test_an_export_has_the_files_of_messages_without_their_text(run: Run) -> None:
    reply = json.loads(run("ask", "When?", "-f", "notes.txt", "--json").stdout)
    run("ask", "And?", "--continue", "-i", "cat.png")
    exported = json.loads(run("conversations", "export", reply["conversation_id"]).stdout)
    parts = [message["content"] for message in exported["messages"] if message["role"] == "user"]
    assert [[part["type"] for part in content] for content in parts] == [
        ["input_text", "input_file"],
        ["input_text", "input_image"],
    ]
    assert list(parts[0][1]) == ["type", "key", "media_type", "size", "name"]
    assert exported["last_image_url"].startswith("/files/LLM/chat_images/cli/")
    listed = json.loads(run("conversations", "messages", reply["conversation_id"], "--json").stdout)
    assert listed["data"] == exported["messages"]


def test_messages_are_shown_with_their_files_which_can_be_downloaded(run: Run) -> None:
    reply = json.loads(run("ask", "Compare", "-i", "cat.png", "-i", "my cat's.gif", "--json").stdout)
    said, *images, answer = run("conversations", "messages", reply["conversation_id"]).stdout.splitlines()[:4]
    assert (said, answer.partition(":")[0]) == ("you: Compare", "model")
    assert [line.rpartition(": ")[0] for line in images] == ["  image cat.png", "  image my cat's.gif"]
    assert run("files", "download", images[0].rpartition(": ")[2], "-o", "-").stdout_bytes == PNG


@pytest.mark.parametrize(("option", "folder"), [("-f", "documents"), ("-i", "chat_images")])
def test_files_of_turns_are_listed_by_their_folder(run: Run, option: str, folder: str) -> None:
    for _ in range(2):
        assert run("ask", "What is it?", option, {"-f": "notes.txt", "-i": "cat.png"}[option]).exit_code == 0
    listed = run("files", "list", "--folder", folder)
    assert [line.split()[0].split("/")[1] for line in listed.stdout.splitlines()[1:]] == [folder] * 2
    newest = listed.stdout.splitlines()[1].split()[0]
    cut = run("files", "list", "--folder", folder, "--limit", "1")
    assert cut.stderr == f"there are more; --after {newest} shows them\n"
    assert len(run("files", "list").stdout.splitlines()) == 1
    assert run("files", "list", "--folder", "elsewhere").exit_code == 2

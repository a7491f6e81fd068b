"""TextLLM for code that does not await."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from textllm_adapters.memory.llm import ScriptedLLM, ScriptedReply
from textllm_adapters.settings import Settings, load_settings
from textllm_adapters.wiring import SyncTextLLM, open_textllm_sync
from textllm_core import (
    Caller,
    DocumentTurn,
    ImageTurn,
    InputTooLongError,
    ProviderUnavailableError,
    ReplyCompleted,
    ReplyStarted,
    ServiceUnavailableError,
    TextDelta,
    TextTurn,
    Upload,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(environ={"TEXTLLM_DATA_DIR": str(tmp_path)}, cwd=tmp_path)


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM()


@pytest.fixture
def textllm(settings: Settings, llm: ScriptedLLM) -> Iterator[SyncTextLLM]:
    with open_textllm_sync(settings, llm=llm) as opened:
        yield opened


def test_a_script_sends_a_text_and_reads_the_reply(textllm: SyncTextLLM) -> None:
    first = textllm.send_message("Hello")
    second = textllm.send_message(Caller(), TextTurn("Go on", first.conversation_id))
    assert (first.text, second.text) == ("[0] You said: Hello", "[2] You said: Go on")
    assert textllm.wait(textllm.conversations.get(Caller(), first.conversation_id)).message_count == 2
    assert list(textllm.each(textllm.administration.audit())) == []


async def test_it_works_where_a_loop_runs_already(settings: Settings, llm: ScriptedLLM) -> None:
    with open_textllm_sync(settings, llm=llm) as textllm:
        assert textllm.send_message("Hello").text == "[0] You said: Hello"


def test_a_stream_is_read_event_by_event(textllm: SyncTextLLM) -> None:
    started, *deltas, completed = textllm.stream("Hello")
    assert isinstance(started, ReplyStarted)
    assert isinstance(completed, ReplyCompleted)
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == completed.reply.text


def test_who_stops_reading_does_not_stop_the_reply(textllm: SyncTextLLM) -> None:
    started = next(textllm.stream("Hello"))
    assert isinstance(started, ReplyStarted)
    while textllm.wait(textllm.conversations.get(Caller(), started.conversation_id)).message_count == 0:
        time.sleep(0.01)
    again = textllm.send_message(Caller(), TextTurn("Go on", started.conversation_id))
    assert again.text == "[2] You said: Go on"


def test_files_go_along(textllm: SyncTextLLM, llm: ScriptedLLM) -> None:
    png = bytes.fromhex("89504e470d0a1a0a0000000d494844520000000100000001080600000000000000")
    with pytest.raises(Exception, match="image"):
        textllm.chat_with_image(ImageTurn("What is it?", [Upload.of_bytes("a.png", png[:8])]))
    reply = textllm.chat_with_document(DocumentTurn("Read it.", Upload.of_bytes("a.txt", b"Once upon a time.")))
    assert reply.text
    assert "Once upon a time." in llm.requests[-1].messages[-1].text_for_model


def test_errors_are_raised_as_they_are(textllm: SyncTextLLM, llm: ScriptedLLM) -> None:
    with pytest.raises(InputTooLongError):
        textllm.send_message("x" * 1_000_000)
    with pytest.raises(TypeError, match="Give a text or a TextTurn"):
        textllm.send_message(3)  # type: ignore[call-overload]
    llm.script(ScriptedReply(error=ProviderUnavailableError("It is overloaded.", may_have_run=False)))
    with pytest.raises(ProviderUnavailableError):
        list(textllm.stream("Hello"))


def test_many_threads_may_use_it(textllm: SyncTextLLM) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(textllm.send_message("Hello").text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["[0] You said: Hello"] * 8


@pytest.mark.parametrize(
    "call",
    [
        lambda textllm: textllm.send_message("Hello"),
        lambda textllm: list(textllm.stream("Hello")),
        lambda textllm: textllm.wait(textllm.conversations.get(Caller(), "conv_1")),
    ],
)
def test_after_the_block_a_call_says_that_it_is_closed(
    settings: Settings, llm: ScriptedLLM, call: Callable[[SyncTextLLM], object]
) -> None:
    with open_textllm_sync(settings, llm=llm) as textllm:
        pass
    with pytest.raises(ServiceUnavailableError, match="is closed"):
        call(textllm)


def test_no_thread_is_left_behind(settings: Settings, llm: ScriptedLLM) -> None:
    before = set(threading.enumerate())
    with open_textllm_sync(settings, llm=llm) as textllm:
        textllm.send_message("Hello")
    assert set(threading.enumerate()) <= before


def test_ctrl_c_ends_what_was_waited_for(textllm: SyncTextLLM) -> None:
    ended, waiter = threading.Event(), threading.main_thread().ident or 0

    async def work() -> None:
        while sys._current_frames()[waiter].f_code is not threading.Condition.wait.__code__:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
        signal.pthread_kill(waiter, signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        textllm.wait(work())
    assert ended.wait(60)
    assert textllm.send_message("Hello").text == "[0] You said: Hello"


def test_a_block_that_ctrl_c_ends_cuts_replies_short(settings: Settings, llm: ScriptedLLM) -> None:
    llm.script(ScriptedReply(text="Once upon a time", gate=asyncio.Event()))  # which nobody opens

    def read() -> None:
        with open_textllm_sync(settings, llm=llm) as textllm:
            reading = textllm.stream("Hello")
            started, _ = next(reading), next(reading)
            assert isinstance(started, ReplyStarted)
            said.append(started.conversation_id)
            raise KeyboardInterrupt

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        read()
    with open_textllm_sync(settings, llm=llm) as textllm:
        assert textllm.wait(textllm.conversations.get(Caller(), said[0])).message_count == 1


def test_a_process_ends_though_nobody_closed_it(tmp_path: Path) -> None:
    program = "\n".join(
        [
            "from textllm_adapters.memory.llm import ScriptedLLM",
            "from textllm_adapters.wiring import open_textllm_sync",
            "textllm = open_textllm_sync(llm=ScriptedLLM())",
            "reading = textllm.stream('Hello')",
            "print(next(reading).conversation_id)",
        ]
    )
    environ = {"TEXTLLM_DATA_DIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    with open_textllm_sync(load_settings(environ=environ, cwd=tmp_path), llm=ScriptedLLM()) as textllm:
        conversation = textllm.wait(textllm.conversations.get(Caller(), ran.stdout.strip()))
        assert conversation.message_count == 1  # closing waited for the reply's end

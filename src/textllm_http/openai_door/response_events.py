"""The events of a response that is being written, as OpenAI's API has them, and in its order."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from msgspec import Raw
from msgspec.structs import replace

from textllm_core.records.hosted import ToolStep
from textllm_core.records.messages import Reply, ReplyCompleted, ReplyStarted, ReplyUsage, reply_message_id
from textllm_core.records.thoughts import Reasoning
from textllm_core.wire import to_json
from textllm_http.openai_door import hosted_items
from textllm_http.openai_door.errors import charge_of
from textllm_http.openai_door.items import Item, hosted_item, message_item, text_part
from textllm_http.openai_door.reasoning import reasoning_item, words_part
from textllm_http.openai_door.response_object import Shown, failure, usage_of
from textllm_http.problems import Problem

Part: TypeAlias = Literal["output_text", "refusal"]
_DONE: Final = b"data: [DONE]\n\n"  # Open Responses demands it, and OpenAI's clients stop there
_TERMINAL: Final = {"completed": "response.completed", "failed": "response.failed"}


def _part_of(kind: Part, text: str) -> Item:
    return {"type": "refusal", "refusal": text} if kind == "refusal" else text_part(text)


class ResponseFrames:
    """Keeps `sse.Frames`: the same reply makes the same events each time, numbered from 0.

    Of some providers it is known at the end alone that a reply is a refusal: it has come as text by then, and the last
    events say so.

    Args:
        told, named: as `Shown` has them.
        conversation_id: of the conversation that was named; a response that is said in another one was forked.
        is_background: nobody waits for it, so that it was queued first.
        returns: as `reply_items` has it.
        after: the number of the last event that the client has; what comes before is left out.
    """

    __slots__ = (
        "_after",
        "_background",
        "_done",
        "_message_id",
        "_model",
        "_named_id",
        "_number",
        "_parts",
        "_places",
        "_returned",
        "_shown",
        "_told",
        "_where",
        "_whole",
        "_words",
        "_writes",
    )

    def __init__(
        self,
        told: Mapping[str, Any],
        named: Callable[[str], str],
        *,
        conversation_id: str | None,
        is_background: bool = False,
        returns: bool = False,
        after: int = -1,
    ) -> None:
        self._told, self._named_id, self._background, self._after = told, conversation_id, is_background, after
        self._number, self._message_id, self._model = 0, "", ""
        self._places: dict[str, int] = {}  # of the items that have begun, by their ids
        self._done: set[str] = set()  # those that a tool of the provider's has brought to their ends
        self._parts: list[Part] = []  # of the message, as far as it has begun
        self._where: dict[Part, bytes] = {}  # their places, as members in JSON
        self._whole: dict[str, Raw] = {}  # messages that have ended, in JSON, by their ids
        self._words: list[str] = []  # of what is thought, before anything is said
        self._returned: Reasoning | None = None  # the same, in the form in which it goes back
        self._shown = Shown("", told, None, named, returns)
        self._writes = b""

    def started(self, event: ReplyStarted) -> bytes:
        conversation_id = event.conversation_id if event.conversation_id == self._named_id else None
        self._shown = replace(self._shown, response_id=event.response_id, conversation_id=conversation_id)
        self._message_id, self._model = reply_message_id(event.response_id), event.model
        first = "queued" if self._background else "in_progress"
        begun = b'"response":' + to_json(self._shown.as_of_now(first, event.model))
        told = self._numbered(b"response.created", begun)
        if self._background:
            told += self._numbered(b"response.queued", begun)
            begun = b'"response":' + to_json(self._shown.as_of_now("in_progress", event.model))
        return told + self._numbered(b"response.in_progress", begun)

    def delta(self, number: int, text: str) -> bytes:
        opened = b"" if self._writes else self._open_text()
        number, self._number = self._number, self._number + 1
        if number <= self._after:
            return opened
        return opened + self._writes % (number, to_json(text))

    def refusal(self, number: int, text: str) -> bytes:  # noqa: ARG002
        opened = b"" if "refusal" in self._parts else self._open("refusal")
        return opened + self._event("response.refusal.delta", **self._place("refusal"), delta=text)

    def thought(self, number: int, words: str) -> bytes:  # noqa: ARG002
        if self._parts:  # the item before the call that follows has it
            return b""
        opened = b"" if self._words else self._open_thought(self._thought_id)
        self._words.append(words)
        return opened + self._event(self._thinks("text.delta"), **self._in_thought(self._thought_id), delta=words)

    def returned(self, number: int, reasoning: Reasoning) -> bytes:  # noqa: ARG002
        self._returned = reasoning
        return b""

    def stepped(self, number: int, step: ToolStep) -> bytes:  # noqa: ARG002
        item = hosted_item(self._message_id, step.item, number=0)
        return self._worked(item) if step.is_done else self._begun(item)

    def completed(self, number: int, end: ReplyCompleted) -> bytes:  # noqa: ARG002
        output, told = self._shown.output_of(end), b""
        if self._words and not any(item["id"] == self._thought_id for item in output):
            output += self._before_text()
        for item in output:
            match item["type"]:
                case "message":
                    told += self._said(end.reply, item)
                case "reasoning":
                    told += self._end_thought(item)
                case "function_call" | "custom_tool_call":
                    told += self._called(item)
                case _:
                    told += self._worked(item)
        output.sort(key=lambda item: self._places[item["id"]])
        response = self._shown.ended(end, [self._whole.get(item["id"], item) for item in output])
        return told + self._event(_TERMINAL.get(response["status"], "response.incomplete"), response=response) + _DONE

    def failed(self, number: int, problem: Problem) -> bytes:  # noqa: ARG002
        charge, usage = charge_of(problem), None
        if charge is not None and charge.usage is not None:
            usage = usage_of(ReplyUsage.of(charge.usage), charge.cost, estimated=charge.estimated)
        if problem.code == "content_refused":  # by the provider's filter, in the midst of it
            response = self._shown.as_of_now("incomplete", self._model, usage=usage, reason="content_filter")
            return self._event("response.incomplete", response=response) + _DONE
        error = failure(problem.code, problem.detail)
        response = self._shown.as_of_now("failed", self._model, usage=usage, error=error)
        return self._event("response.failed", response=response) + _DONE

    def _open_text(self) -> bytes:
        """What comes before the first piece of the text."""
        opened = self._open("output_text")
        self._writes = (
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":%d,'
            + self._where["output_text"].replace(b"%", b"%%")
            + b',"delta":%b,"logprobs":[]}\n\n'
        )
        return opened

    def _next(self, item_id: str) -> int:
        """The place of an item that begins."""
        self._places[item_id] = place = len(self._places)
        return place

    def _open(self, part: Part) -> bytes:
        """What comes before the first piece of a part of the message, and of the message."""
        item_id, told = self._message_id, b""
        if not self._parts:
            for thought in self._before_text():
                told += self._end_thought(thought)
            item = message_item(item_id, "assistant", [], status="in_progress")
            told += self._event("response.output_item.added", output_index=self._next(item_id), item=item)
        self._parts.append(part)
        self._where[part] = where = to_json(self._place(part))[1:-1]
        return told + self._numbered(
            b"response.content_part.added", b'%b,"part":%b' % (where, to_json(_part_of(part, "")))
        )

    def _place(self, part: Part) -> dict[str, Any]:
        index = self._places[self._message_id]
        return {"item_id": self._message_id, "output_index": index, "content_index": self._parts.index(part)}

    def _said(self, reply: Reply, item: Item) -> bytes:
        """What comes behind the last piece of the text."""
        told, parts = b"", {part["type"]: part for part in item["content"]}
        if not self._parts:
            for part in item["content"]:
                refuses = part["type"] == "refusal"
                text = part["refusal"] if refuses else part["text"]
                if text:
                    told += self.refusal(0, text) if refuses else self.delta(0, text)
                else:
                    told += self._open_text()
        for kind in self._parts:  # a refusal may have come as text
            part, where = parts.get(kind) or _part_of(kind, reply.text), self._where[kind]
            if kind == "refusal":
                told += self._event("response.refusal.done", **self._place(kind), refusal=part["refusal"])
            else:
                if part["annotations"]:
                    told += b"".join(hosted_items.cited(part["annotations"], self._place(kind), self._event))
                words = to_json(part["text"])
                told += self._numbered(b"response.output_text.done", b'%b,"text":%b,"logprobs":[]' % (where, words))
            told += self._numbered(b"response.content_part.done", b'%b,"part":%b' % (where, to_json(part)))
        self._whole[item["id"]] = whole = Raw(to_json(item))
        return told + self._event("response.output_item.done", output_index=self._places[item["id"]], item=whole)

    @property
    def _thought_id(self) -> str:
        """Of the item with which a reply begins that was thought about."""
        return f"rs_{self._message_id}"

    def _before_text(self) -> list[Item]:
        """What was thought before the text, as far as it is told."""
        if not self._words and self._returned is None:
            return []
        known = replace(self._returned or Reasoning(made_by="", content=""), words="".join(self._words))
        item = reasoning_item(
            self._message_id, known, call_id=None, returns=self._shown.returns, sums_up=self._shown.sums_up
        )
        return [] if item is None else [item]

    def _open_thought(self, item_id: str) -> bytes:
        """What comes before the first piece of what is thought in words."""
        item = {"id": item_id, "type": "reasoning", "summary": [], "status": "in_progress"}
        told = self._event("response.output_item.added", output_index=self._next(item_id), item=item)
        part = words_part("", sums_up=self._shown.sums_up)
        return told + self._event(self._thinks("part.added"), **self._in_thought(item_id), part=part)

    def _thinks(self, what: str) -> str:
        """The name of an event of what is thought."""
        if self._shown.sums_up:
            return f"response.reasoning_summary_{what}"
        return f"response.content_{what}" if what.startswith("part") else f"response.reasoning_{what}"

    def _in_thought(self, item_id: str) -> dict[str, Any]:
        index = "summary_index" if self._shown.sums_up else "content_index"
        return {"item_id": item_id, "output_index": self._places[item_id], index: 0}

    def _end_thought(self, item: Item) -> bytes:
        """What comes behind the last piece of what is thought; all of it, where nothing of it was told yet."""
        item_id, told = item["id"], b""
        if item_id in self._done:
            return told
        self._done.add(item_id)
        for part in item["summary"] or item.get("content", ()):
            if item_id not in self._places:
                told += self._open_thought(item_id)
                told += self._event(self._thinks("text.delta"), **self._in_thought(item_id), delta=part["text"])
            told += self._event(self._thinks("text.done"), **self._in_thought(item_id), text=part["text"])
            told += self._event(self._thinks("part.done"), **self._in_thought(item_id), part=part)
        if item_id not in self._places:
            begun = {name: value for name, value in item.items() if name != "encrypted_content"}
            told += self._event("response.output_item.added", output_index=self._next(item_id), item=begun)
        return told + self._event("response.output_item.done", output_index=self._places[item_id], item=item)

    def _called(self, item: Item) -> bytes:
        """A call of a function, which is here as a whole."""
        index = self._next(item["id"])
        takes_text = item["type"] == "custom_tool_call"
        kind = "custom_tool_call_input" if takes_text else "function_call_arguments"
        what = "input" if takes_text else "arguments"
        where = {"item_id": item["id"], "output_index": index}
        named = {} if takes_text else {"name": item["name"]}
        begun: Item = item | {what: "", "status": "in_progress"}
        told = self._event("response.output_item.added", output_index=index, item=begun)
        told += self._event(f"response.{kind}.delta", **where, delta=item[what])
        told += self._event(f"response.{kind}.done", **where, **named, **{what: item[what]})
        return told + self._event("response.output_item.done", output_index=index, item=item)

    def _begun(self, item: Item) -> bytes:
        """A tool of the provider's begins."""
        return hosted_items.begun(item, self._next(item["id"]), self._event)

    def _worked(self, item: Item) -> bytes:
        """What a tool of the provider's did, as far as it was not told yet."""
        if item["id"] in self._done:
            return b""
        self._done.add(item["id"])
        told = b"" if item["id"] in self._places else self._begun(item)
        return told + hosted_items.done(item, self._places[item["id"]], self._event)

    def _event(self, kind: str, **data: Any) -> bytes:
        return self._numbered(kind.encode(), to_json(data)[1:-1])

    def _numbered(self, kind: bytes, members: bytes) -> bytes:
        """An event; `members`: what it has besides its kind and its number, in JSON."""
        number, self._number = self._number, self._number + 1
        if number <= self._after:
            return b""
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (kind, kind, number, members)

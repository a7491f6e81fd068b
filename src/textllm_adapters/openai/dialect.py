"""What a server takes beside what all of them do: as its operator says, its address tells, or its refusals teach."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from textllm_adapters.openai.errors import Asked
from textllm_adapters.openai.faults import Fault
from textllm_adapters.openai.reasoning import has_any
from textllm_core.errors import InvalidRequestError, ModelError, TextLLMError
from textllm_core.records.model import ModelRequest
from textllm_core.records.tools import JsonSchemaFormat

T = TypeVar("T")

_OPENAI_HOSTS: Final = ("api.openai.com", ".api.openai.com", ".openai.azure.com")
_MISTRAL: Final = "api.mistral.ai"  # it refuses stream_options, and states the usage all the same
_OF_NINE: Final = re.compile(r"tool call id.{0,200}length of 9")
# Those of OpenAI's models that refuse `max_tokens` wherever they are.
_NEWER_MODEL: Final = re.compile(r"(?:.*/)?(?:gpt-5|o[134])(?:[.-].*)?", re.IGNORECASE)
_OPTIONAL: Final = ("stream_options", "store", "safety_identifier", "prompt_cache_key")
_LENGTHS: Final = ("max_tokens", "max_completion_tokens")
_UNKNOWN: Final = re.compile(
    r"extra|unknown|unrecogni[sz]ed|unexpected|unsupported"
    r"|not (?:currently )?(?:support|permit|allow|recogni[sz]|accept)"
    r"|does(?: not|n't) (?:support|accept|take)|invalid (?:field|parameter|argument|key)|additional propert"
)
_CONTEXT: Final = re.compile(
    r"(?:context[ _](?:length|window|size|limit)|n_ctx|maximum model length|max_model_len|max_seq_len)[^0-9]{0,60}?"
    r"([0-9]{2,9})"
)
_PROMPT: Final = re.compile(
    r"([0-9]{1,9})(?: tokens?)? (?:(?:in|from|of) (?:the |your )?(?:messages|prompt|input)|input tokens)"
    r"|(?:prompt|messages|input)[^0-9,;.]{0,40}?([0-9]{1,9})(?: input)? tokens"
)
_AT_MOST: Final = re.compile(
    r"(?:at most|<=|less than or equal to|no more than|maximum (?:value|of)[^0-9]{0,12}|up to) ?`?([0-9]{2,9})"
)
# That something is wrong with the longest reply, or with it and the prompt together, by any of its names.
_OF_LENGTH: Final = re.compile(r"max(?:imum)?[ _-]?(?:completion|output|new|generated)?[ _-]?tokens|maxoutputtokens")
_OF_REPLY: Final = re.compile(r"\b(?:completion|output|reply)\b")
# That it is too short for what the model thinks first, or has thought: a shorter one would be asked, and paid, in vain.
_TOO_SHORT: Final = re.compile(
    r"at least [0-9]|higher max|too (?:small|low|short)|must be (?:greater|higher|more|larger)|minimum|was reached"
    r"|could not finish"
)
_OF_BOTH: Final = re.compile(r"prompt|input|context|message|conversation|total|seq|session")
_NUMBER: Final = re.compile(r"(?<![\w.-])[0-9]{2,6}(?![\w-]|\.[0-9])")  # no part of a model's name
_REASONING_MODEL: Final = re.compile(r"(?:.*/)?(?:gpt-[5-9]|gpt-oss|o[1-9]|codex)(?:[.-].*)?", re.IGNORECASE)
_LACKING: Final = re.compile(
    r"reasoning_content.{0,200}(?:missing|passed back|required)|missing.{0,40}reasoning_content"
)
_SHORTEST_REPLY: Final = 16  # tokens, the least that the Responses API accepts
_BYTES_OF_TOKEN: Final = 3  # about; text in English has four
_ASIDE_TOKENS: Final = 64  # what a template adds
_MOST_LESSONS: Final = 6  # each of the optional fields, the name of the length, and the length
_MOST_MODELS: Final = 1_000  # of which is remembered what they refuse


class Dialect(Struct, frozen=True, kw_only=True):
    """What one server takes, for one model.

    Args:
        is_openai: it is OpenAI's own, which has the role `developer` and takes nothing beside a call.
        images, files, tools, json_schema: of what turns may bring.
        max_completion_tokens: the longest reply by this name, in the place of `max_tokens`; None: by the model's name.
        stream_options, store, safety_identifier, prompt_cache_key: fields of the API that some servers refuse.
        short_call_ids: ids of calls have nine letters and digits.
        reasoning: it takes no calls without what the model thought before them; False: it takes nothing of that back.
        encrypted: it gives the reasoning of its models, encrypted, to be sent back; `summaries`: summed up.
        trusts_cost: what it says that a call cost is what is charged.
        longest, context: tokens of a reply, and of all there is, as the server has said; None: it has not.
    """

    is_openai: bool = False
    images: bool = True
    files: bool = False
    tools: bool = True
    json_schema: bool = True
    max_completion_tokens: bool | None = None
    stream_options: bool = True
    store: bool = True
    safety_identifier: bool = True
    prompt_cache_key: bool = True
    short_call_ids: bool = False
    reasoning: bool | None = None
    encrypted: bool = True
    summaries: bool = True
    trusts_cost: bool = False
    longest: int | None = None
    context: int | None = None

    @classmethod
    def of_chat(cls, host: str) -> "Dialect":
        """What a server of the Chat Completions API is taken to know, by its address."""
        is_openai = host.endswith(_OPENAI_HOSTS)
        return cls(
            is_openai=is_openai,
            max_completion_tokens=True if is_openai else None,
            stream_options=host != _MISTRAL,
            short_call_ids=host == _MISTRAL,
            safety_identifier=is_openai,
            prompt_cache_key=is_openai,
        )

    def check(self, request: ModelRequest) -> None:
        """
        Raises:
            InvalidRequestError: the turn asks for what the server has not.
        """
        if request.tools and not self.tools:
            raise InvalidRequestError.of("tools", "the model calls no functions; use another model")
        if isinstance(request.response_format, JsonSchemaFormat) and not self.json_schema:
            raise InvalidRequestError.of("response_format", "the model keeps to no schema; use another model")

    def known(self, by: str) -> str | None:
        """Whose reasoning is sent back: that of `by`; None: nobody's."""
        return None if self.reasoning is False else by

    def encrypts(self, request: ModelRequest) -> bool:
        """Whether the Responses API is to tell what the model thinks, for a later turn, as the one with the results."""
        if not (self.encrypted and (request.tools or request.returns_reasoning)):
            return False
        return request.reasoning_effort not in (None, "none") or _REASONING_MODEL.fullmatch(request.model) is not None

    def length_name(self, model: str) -> str:
        """What the Chat Completions API of this server calls the longest reply."""
        is_newer = self.max_completion_tokens
        if is_newer is None:
            is_newer = _NEWER_MODEL.fullmatch(model) is not None
        return _LENGTHS[is_newer]

    def length(self, request: ModelRequest) -> int:
        """The longest reply, in tokens, that fits beside what is sent, as far as is known."""
        most = request.max_output_tokens
        if self.longest is not None:
            most = min(most, self.longest)
        if self.context is not None:
            most = min(most, max(self.context - self._said(request), _SHORTEST_REPLY))
        return most

    def _said(self, request: ModelRequest) -> int:
        """About how many tokens are sent."""
        said = sum(len(message.text_for_model.encode()) for message in request.messages)
        said += len((request.instructions or "").encode())
        return said // _BYTES_OF_TOKEN + _ASIDE_TOKENS

    def after(self, fault: Fault | None, request: ModelRequest, sent: Mapping[str, object]) -> "Dialect | None":
        """What is known once it has refused a call; None where that is nothing new, so that it is no use to ask again.

        Args:
            sent: the body.
        """
        if fault is None or fault.status not in (400, 413, 422):
            return None
        field = re.split(r"[.\[]", fault.param or "", maxsplit=1)[0]
        is_unknown = _UNKNOWN.search(f"{fault.words} {fault.code} {fault.type}".lower()) is not None
        if is_unknown:
            for name in _OPTIONAL:
                is_named = name == field or (not field and name in fault.words)
                if (
                    is_named
                    and name in sent
                    and getattr(self, name)
                    and not (name == "store" and request.transcript_id)
                ):
                    return replace(self, **{name: False})
        if "include" in sent and (field == "include" or (is_unknown and "encrypted" in fault.words)):
            return replace(self, encrypted=False)
        names_summary = "summary" in fault.words if fault.param is None else fault.param.startswith("reasoning")
        if self.summaries and names_summary and fault.param != "reasoning.effort" and _sums_up(sent):
            return replace(self, summaries=False)  # OpenAI gives them to organisations alone that it knows
        if _LACKING.search(fault.words) and self.reasoning is None and not is_unknown:
            return replace(self, reasoning=True)
        is_of_item = field == "input" and "[" in (fault.param or "")
        if has_any(sent) and (is_of_item or re.search("reasoning|encrypted", f"{fault.words} {fault.code}")):
            return replace(self, reasoning=False) if self.reasoning is not False else None
        if _OF_NINE.search(fault.words):
            return None if self.short_call_ids else replace(self, short_call_ids=True)
        of_it = (name for name in _LENGTHS if name in sent)
        named = next((name for name in of_it if name == field or re.search(rf"\b{name}\b", fault.words)), None)
        if (most := _AT_MOST.search(fault.words)) and (named or field == "max_output_tokens"):
            longest = int(most[1])
            return replace(self, longest=longest) if _SHORTEST_REPLY <= longest < _asked(sent) else None
        if named and is_unknown:
            is_newer = named == "max_tokens"
            return None if self.max_completion_tokens is is_newer else replace(self, max_completion_tokens=is_newer)
        if fault.meaning() == "too_long" and (stated := _CONTEXT.search(fault.words)):
            return self._within(int(stated[1]), fault.words, _asked(sent))
        return self._shorter(fault, request, _asked(sent))

    def _shorter(self, fault: Fault, request: ModelRequest, asked: int) -> "Dialect | None":
        """Where the longest reply may be what does not fit, in words that nobody foresaw: one that may.

        What they state is taken for the longest reply, then for the context; then it is half as much as was asked.
        """
        words = fault.words
        stated = [int(number) for number in _NUMBER.findall(words)]
        # Without either it speaks of the input alone.
        is_of_all = fault.meaning() == "too_long" and (stated or _OF_REPLY.search(words))
        if _TOO_SHORT.search(words) or not (is_of_all or _OF_LENGTH.search(words)):
            return None
        if asked <= max(self._said(request), _SHORTEST_REPLY):  # then it is the prompt that is too long
            return None
        shorter = [number for number in stated if _SHORTEST_REPLY < number < asked and number != fault.status]
        if shorter and self.longest is None:
            return replace(self, longest=max(shorter))
        if self.longest == asked and self.context is None and asked in stated and _OF_BOTH.search(words):
            return replace(self, longest=None, context=asked)
        return replace(self, longest=asked // 2)

    def _within(self, context: int, words: str, asked: int) -> "Dialect | None":
        """Where the longest reply is what does not fit, one that does."""
        found = _PROMPT.search(words)
        prompt = int(found[1] or found[2]) if found else None
        if prompt is not None and context - prompt < _SHORTEST_REPLY:
            return None
        if self.context is None or self.context > context:
            known = replace(self, context=context)
        elif self.longest is not None and self.longest < asked:
            return None
        else:
            known = self
        if prompt is not None and context - prompt < asked:
            return replace(known, longest=context - prompt)
        return known if known is not self else None


def _sums_up(sent: Mapping[str, object]) -> bool:
    reasoning = sent.get("reasoning")
    return isinstance(reasoning, dict) and "summary" in reasoning


def _asked(sent: Mapping[str, object]) -> int:
    lengths = [sent.get(name) for name in (*_LENGTHS, "max_output_tokens")]
    return max((length for length in lengths if isinstance(length, int)), default=0)


RESPONSES: Final = Dialect()


class Lessons:
    """What a server has taught, by model."""

    def __init__(self, dialect: Dialect) -> None:
        self.first = dialect
        self._known: dict[str, Dialect] = {}

    def of(self, model: str) -> Dialect:
        return self._known.get(model, self.first)

    def learn(self, model: str, context: int) -> None:
        """Know how many tokens the past, the turn and the reply of a model have together."""
        self.keep(model, replace(self.of(model), context=context))

    def keep(self, model: str, dialect: Dialect) -> None:
        """Remember it, but for a length that only this prompt left, and for reasoning that only this call had."""
        if dialect.reasoning is False:
            dialect = replace(dialect, reasoning=self.of(model).reasoning)
        if len(self._known) >= _MOST_MODELS:
            del self._known[next(iter(self._known))]
        self._known[model] = dialect if dialect.context is None else replace(dialect, longest=None)

    async def taught(
        self,
        asked: Asked,
        request: ModelRequest,
        ask: Callable[[Dialect, dict[str, object]], Awaitable[T]],
    ) -> T:
        """The answer of `ask`, which is called again, at once, where a refusal tells how; nothing of it has run.

        What a refusal seemed to tell is remembered once it has helped: its words may repeat a user's.
        """
        dialect = self.of(request.model)
        dialect.check(request)
        lessons = 0
        while True:
            sent: dict[str, object] = {}
            try:
                answer = await ask(dialect, sent)
            except TextLLMError as refusal:
                lesson = None
                may_have_run = isinstance(refusal, ModelError) and refusal.may_have_run
                if lessons < _MOST_LESSONS and asked.refused is not None and not may_have_run:
                    lesson = dialect.after(asked.refused, request, sent)
                if lesson is None:
                    raise
                dialect, lessons = lesson, lessons + 1
            else:
                if lessons:
                    self.keep(request.model, dialect)
                return answer

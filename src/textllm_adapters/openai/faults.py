"""What a provider says of a failure, in whatever shape it says it, and what that means: one table for every place."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final, Literal, NamedTuple

Meaning = Literal[
    "busy", "quota", "rate", "too_long", "filtered", "key", "blind", "model", "route", "unavailable", "other"
]

_NAME: Final = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_STEP: Final = re.compile(r"\[?([0-9]{1,4})\]?|([A-Za-z_][A-Za-z0-9_]{0,63})")  # of the way to a parameter
_MOST_STEPS: Final = 9
_OF_CALLERS: Final = ("metadata", "parameters", "schema", "properties", "arguments")  # whose keys are their own words
_SPEAKING: Final = (
    *("message", "error", "detail", "details", "errors", "msg", "metadata", "raw"),
    *("base_resp", "status_msg", "header"),  # of MiniMax, and of Spark
)
# Where they put names, if not into the error itself; the last two have what another one said, as a text.
_ASIDE: Final = ("errors", "detail", "details", "base_resp", "header", "message", "fieldViolations", "metadata", "raw")
_PARAMS: Final = ("param", "loc", "field")  # as OpenAI, pydantic and Google call it
_IDS: Final = ("request_id", "trace", "trace_id")
# What has the words of Baidu, Huawei, Tencent, AWS, Apigee and others, with neither case nor underscores.
_OTHER_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("code", "errorcode", "errcode", "errno"), "code"),
    **dict.fromkeys(("message", "errormsg", "errmsg", "errormessage", "faultstring", "title"), "message"),
    **dict.fromkeys(("error", "fault"), "error"),
    "msg": "msg",
    **dict.fromkeys(("requestid", "logid", "sid"), "request_id"),
}
_AROUND: Final = ("response", "result")  # of Tencent and Cloudflare: around the error, and around a reply
_NO_FAILURE: Final = ("0", "200", "ok", "success")  # as a code, beside a reply
_STATUS_NAMES: Final = ("code", "status_code", "status", "statusCode", "http_status", "http_code")
_PASSING: Final = (408, 409, 424, 498)  # 424 of TEI and Bedrock: the model is not ready; 498 of Groq: no room
_STATUS_IN_WORDS: Final = re.compile(r"(?:\A|\b(?:http|status|error)(?: (?:status|code))*:? )([45][0-9]{2})\b")
_MOST_CHARS: Final = 4000  # read of what it says; whatever it means stands at its beginning
_MOST_DEPTH: Final = 6  # of lists and objects within each other
_MOST_ASIDE: Final = 8  # failures that are told of together
_LONGEST_WAIT_S: Final = 10**9  # no float holds every whole number that JSON may have

# Names that codes and types have, in lower case.
_NAMED: Final[Mapping[Meaning, str]] = {
    "busy": "conversation_locked",
    "quota": """insufficient_quota insufficient_user_quota insufficient_balance billing_hard_limit_reached
        billing_not_active exceeded_current_quota_error payment_required arrearage account_overdue_error
        token_quota_reached""",
    "rate": """rate_limit_exceeded rate_limit_error ratelimiterror rate_limited too_many_requests resource_exhausted
        throttlingexception throttling throttled request_limit_exceeded limit_exceeded rate_limit_reached""",
    "too_long": """context_length_exceeded exceed_context_size_error contextwindowexceedederror request_too_large
        context_window_exceeded model_max_prompt_tokens_exceeded tokens_limit_reached string_above_max_length""",
    "filtered": """content_filter content_policy_violation invalid_prompt image_content_policy_violation
        responsibleaipolicyviolation data_inspection_failed bio_policy misalignment_policy_violation
        sensitive_content_detected input_text_sensitive_content_detected output_text_sensitive_content_detected""",
    "key": "invalid_api_key authentication_error permission_error auth_failure unauthorized_operation",
    "model": "model_not_found",
    "unavailable": """server_error server_is_overloaded slow_down overloaded overloaded_error engine_overloaded_error
        engine_overloaded
        insufficient_system_resource service_unavailable internal_server_error unavailable
        serviceunavailableexception internalserverexception modelnotreadyexception timeout_error server_overloaded
        modelstreamerrorexception capacity_exceeded""",
}
_NAMES: Final[Mapping[str, Meaning]] = {
    name.replace("_", ""): meaning for meaning, names in _NAMED.items() for name in names.split()
}

# What they say where no name tells; as OpenAI, vLLM, SGLang, TGI, LM Studio, llama.cpp, Together, Gemini, Anthropic,
# Bedrock, xAI, Groq, Mistral, Fireworks, DashScope, SiliconFlow, TensorRT-LLM, watsonx, Databricks, Zhipu, Baidu,
# Huawei, Tencent, Volcengine, Cloudflare and OGX phrase it.
_TOO_LONG: Final = re.compile(
    r"context[ _](length|window|size|limit)|context the overflows|context overflow|maximum prompt length"
    r"|maximum model length|longer than the maximum|prompt is too long|prompt too long|input is too long"
    r"|input is too large to process|input prompt is too big|input token count|too large for model with"
    r"|must have less than \d+ tokens|`?max_new_tokens`? must be <=|max_tokens must be at least 1"
    r"|token count exceeds|exceeds the maximum (allowed length|number of tokens)|exceeds? max(imum)? length"
    r"|model token limit|token limit exceeded|too many tokens|reduce the length of the (messages|prompt|input)"
    r"|range of input length|exceeds? n_ctx|exceed max message tokens|contextwindowexceeded"
    r"|must be less than max_seq_len|max_seq_len \(\d+\) - prompt_len|maximum input length|prompt 超长"
    r"|token count.{0,20} cannot exceed|tokens.{0,20} cannot exceed the total tokens|max_total_tokens exceeded"
    r"|tokens (in the prompt )?exceeds? the (configured )?limit|prompt tokens too long|max length of current question"
)
# More tokens than a minute may have: it is called a rate limit, and never passes however long anybody waits.
_TOO_LONG_FOR_ANY_RATE: Final = re.compile(r"request too large for")
_QUOTA: Final = re.compile(
    r"insufficient[ _](account )?(balance|credits?|quota|funds)|credit balance is too low|requires more credits"
    r"|(run )?out of credits|key limit exceeded|balance is insufficient|overdue balance|daily free allocation"
    r"|(daily|total) request limit|used all available credits|monthly spending limit|(have|has) (any|no) credits"
    r"|in arrears|欠费|余额不足"
)
_RATE: Final = re.compile(
    r"rate[ _]?limit|too many requests|overloaded_error|request limit reached|throttling threshold|was throttled"
    r"|capacity temporarily exceeded|qpsoverflow|并发数过高|请求过多"
)
_THROTTLED: Final = re.compile(r"wait before trying again|throttlingexception")  # it tells of too many tokens, too
_UNAVAILABLE: Final = re.compile(
    r"(service|server|model|engine|provider) (is )?(currently |temporarily |too )*(unavailable|overloaded|busy)"
    r"|internal (server|service|system) error|\Ainternal error|try again later|out of memory|request timed out"
    r"|系统(异常|繁忙)"
)
_FILTERED: Final = re.compile(
    r"content management policy|content policy|input was flagged|safety system|content exists risk|new_sensitive|敏感"
    r"|content unsafe|sensitive (information|content)|inappropriate content"
)
_KEY: Final = re.compile(
    r"api key not valid|(invalid|incorrect) api[ -]key|access token (is )?(invalid|expired)|no permission to access"
    r"|\A(not authenticated|unauthorized\b|authentication (error|fail)|login fail|身份验证失败)"
)
_MODEL: Final = re.compile(
    r"model\b.{0,220}(not found|does not exist|doesn't exist|not loaded|isn't loaded|not available)"
    r"|(no|no such|unknown|invalid) models? |no models? loaded|model not exist|not a valid model\b|模型不存在"
    r"|model can ?not be found|\Amodel: \S+\Z"  # the last is Anthropic's
)
_ROUTE: Final = re.compile(r"unexpected endpoint or method")  # LM Studio's, with a 200
# Names that say no more than the status 404 does, in lower case and without underscores; the first is TextLLM's own.
_NOTHING_THERE: Final = ("notfound", "notfounderror", "routenotfound", "endpointnotfound", "unknownurl", "invalidurl")
_EYES: Final = r"(images?|vision|multi-?modal|input_file|files?|pdfs?)"
_BLIND: Final = re.compile(
    rf"{_EYES}( inputs?| content|_url)?,? (is|are) not (supported|enabled)|{_EYES} inputs? (is not|not|isn't) support"
    rf"|(does|do|is|are)( not|n't) (currently )?(support|accept|process|handle|have) {_EYES}(?! (format|type))"
    r"|not a multi-?modal|at most 0 (image|file)|missing data required for image|only supported by certain models"
    r"|(unknown|invalid|unsupported) (part type|variant|content type).{0,40}(image|file)|must be a string|mmproj"
    r"|not compiled for multi-?modal|support image input|text[- ]only|only supports? text"
    r"|image(_url)?['`\"]? is not a valid|input should be a valid string"
)
_FILE: Final = re.compile(r"image|file_data|filename|input_file|\bpdf\b")
_LATER: Final = re.compile(
    r"(?:try again in|retry in|retry after|wait) "
    r"((?:[0-9.]{1,13} ?(?:ms|milliseconds?|h|hours?|m|minutes?|s|seconds?),? ?){1,4})"
)
_WAITS: Final = ("retry_after", "retry-after", "retryafter", "retry_after_seconds", "retrydelay")
_LENGTH: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(ms|milli|h|m|s)")
_SECONDS: Final = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Fault(NamedTuple):
    """A failure as the provider states it.

    Args:
        status: of HTTP, or a code that is one.
        code, type, param: None where they are not such names as may be repeated.
        request_id: by which its support finds the call; None where it says none.
        words: all that it says, in lower case. They may hold what was sent: they are matched, and go no further.
        wait_s: how long it asks us to wait.
    """

    status: int | None
    code: str | None
    type: str | None
    param: str | None
    request_id: str | None
    words: str
    wait_s: float | None

    @property
    def spoils_file(self) -> bool:
        """It speaks of an image or a file."""
        return _FILE.search(f"{self.words} {self.code} {self.param}") is not None

    def is_stated(self, *, with_files: bool = False) -> bool:
        """It is one, also where what it was read from may be none: it has a code that is no success's, or a meaning."""
        is_named = self.code is not None and self.code.lower() not in _NO_FAILURE
        return is_named or self.meaning(with_files=with_files) != "other"

    @property
    def names_what_is_missing(self) -> bool:
        """Its code says what it did not find, so that there is an API at the address that was asked."""
        return self.code is not None and self.code.lower().replace("_", "") not in _NOTHING_THERE

    @property
    def is_blindness(self) -> bool:
        """It says that the model takes no images or files at all."""
        return _BLIND.search(self.words) is not None

    def meaning(self, *, with_files: bool = False) -> Meaning:
        """What it means for a call, which had images or files or had not.

        Names go before words, which may be wrong; words before statuses, which servers choose freely, but for 402 and
        429. That it is unavailable says no more than a status does.
        """
        if _TOO_LONG_FOR_ANY_RATE.search(self.words):
            return "too_long"
        names = [_known(name) for name in (self.code, self.type) if name is not None]
        if (known := next((name for name in names if name not in (None, "unavailable")), None)) is not None:
            return known
        if self.status in (402, 429):
            return "quota" if self.status == 402 or _QUOTA.search(self.words) else "rate"
        for pattern, meaning in _WORDS:
            if pattern.search(self.words):
                return meaning
        if with_files and self.is_blindness:
            return "blind"
        if self.status == 413 and self.code is None:
            return "too_long"
        if self.status in (401, 403) or _KEY.search(self.words):
            return "key"
        if self.status in (None, 400, 404) and self.param in (None, "model") and _MODEL.search(self.words):
            return "model"
        if self.status in (404, 405, 501) or (self.status or 0) // 100 == 3 or _ROUTE.search(self.words):
            return "route"
        named = any(names)
        if self.status is None:
            named = named or _UNAVAILABLE.search(self.words) is not None
        return "unavailable" if named or self.status in _PASSING or (self.status or 0) >= 500 else "other"


_WORDS: Final[tuple[tuple[re.Pattern[str], Meaning], ...]] = (
    (_QUOTA, "quota"),
    (_THROTTLED, "rate"),
    (_TOO_LONG, "too_long"),
    (_FILTERED, "filtered"),
    (_RATE, "rate"),
)


def fault_of(said: object, *, status: int | None = None) -> Fault:
    """What a decoded body, an `error` in it, or a plain text says. `status`: of the answer, where it has one."""
    said = _unwrapped(said)
    given = _given(said, 0)
    inner = _unwrapped(_in_our_names(said).get("error")) if isinstance(said, dict) else None
    code = given.get("code")
    if code is None:  # MiniMax's status is a code of its own
        code = given.get("status_code")
    if isinstance(given.get("status"), str) and (code is None or (isinstance(code, int) and not _status(code))):
        code = given["status"]  # Google's name for it, beside a number of gRPC
    kind = given.get("type") if given.get("type") != "error" else given.get("error_type")
    kind = kind or given.get("error_type") or given.get("__type")  # of TGI, and of Bedrock
    if code is None and isinstance(inner, str) and _known(inner):  # the name is all that is told
        code = inner
    if kind is None and isinstance(given.get("status"), str):  # of Google, beside a status of HTTP
        kind = given["status"]
    words = " ".join(_words(said, 0))[:_MOST_CHARS].lower()
    return Fault(
        status=status or _first_status(*(given.get(name) for name in _STATUS_NAMES), inner, said, _status_in(words)),
        code=None if _status(code) else named(code),
        type=named(kind),
        param=next(filter(None, (_param(given.get(name)) for name in _PARAMS)), None),
        request_id=next(filter(None, (identified(given.get(name)) for name in _IDS)), None),
        words=words,
        wait_s=_wait(given, words),
    )


def fault_in(body: bytes, *, status: int) -> Fault:
    """What the body of an answer says, be it JSON or not."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = body[:_MOST_CHARS].decode(errors="replace")
    return fault_of(said, status=status)


def named(code: object) -> str | None:
    """A code of the provider that is safe to repeat, else None."""
    if isinstance(code, int) and not isinstance(code, bool):
        code = str(code)[:64] if abs(code) < 10**9 else None
    return code if isinstance(code, str) and _NAME.fullmatch(code) else None


def _known(name: str) -> Meaning | None:
    """What a name means, however it is written; of those that dots join, the first which means something."""
    names = (_NAMES.get(part.lower().replace("_", "")) for part in (name, *name.split(".")))
    return next(filter(None, names), None)


def says_nothing(error: object) -> bool:
    """Nothing stands in it: some write an error beside every reply, without a code, and without a message."""
    if isinstance(error, dict | list):
        return all(map(says_nothing, error.values() if isinstance(error, dict) else error))
    return error.strip().lower() in ("", "none", "null") if isinstance(error, str) else not error


def identified(request: object) -> str | None:
    """An id of a call that is safe to repeat, else None."""
    return request if isinstance(request, str) and _REQUEST_ID.fullmatch(request) else None


def _unwrapped(said: object) -> object:
    """Some put the error into a list, or into a text."""
    if isinstance(said, str) and said[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            said = json.loads(said)
    return said[0] if isinstance(said, list) and said and isinstance(said[0], dict) else said


def _given(said: object, depth: int) -> dict[object, object]:
    """All that is stated in it: first by the failure that it tells of, then by itself, then by what stands beside."""
    if not isinstance(said, dict) or depth >= _MOST_DEPTH:
        return {}
    said = _in_our_names(said)
    given = said | _stated(_given(_unwrapped(said.get("error")), depth + 1))  # in theirs, what another one said
    for name in _ASIDE:
        aside = said.get(name)
        for each in aside[:_MOST_ASIDE] if isinstance(aside, list) else [_unwrapped(aside)]:
            beside, code = _stated(_given(each, depth + 1)), given.get("code")
            if _status(code) and beside.get("code"):  # a status has no name of its own
                given = given | {"code": beside["code"], "status_code": code}
            given = beside | _stated(given)
    return given


def _in_our_names(said: Mapping[object, object]) -> dict[object, object]:
    """What it states, also by the names that are read here, where it has others for them."""
    ours = dict(said)
    for name, value in said.items():
        plain = name.lower().replace("_", "") if isinstance(name, str) else ""
        if plain.endswith("exception") and isinstance(value, dict):  # of AWS: what it is named after
            ours.setdefault("error", value | {"type": name})
        elif plain == "errormsg" and isinstance(value, dict):
            ours.setdefault("error", value)
        elif plain in _OTHER_NAMES:
            ours.setdefault(_OTHER_NAMES[plain], value)
        elif plain in _AROUND and isinstance(value, dict) and "error" in _in_our_names(value):
            ours.setdefault("error", value)
    return ours


def _stated(said: Mapping[object, object]) -> dict[object, object]:
    return {key: value for key, value in said.items() if value is not None}


def _status_in(words: str) -> str | None:
    """A status that the words begin with, or name as one: many hand on so what another server answered."""
    found = _STATUS_IN_WORDS.search(words)
    return found and found[1]


def _words(said: object, depth: int) -> Iterator[str]:
    if isinstance(said, str):
        yield said[:_MOST_CHARS]
    elif depth < _MOST_DEPTH and isinstance(said, dict):
        said = _in_our_names(said)
        for key in _SPEAKING:
            yield from _words(said.get(key), depth + 1)
    elif depth < _MOST_DEPTH and isinstance(said, list):
        for one in said[:8]:
            yield from _words(one, depth + 1)


def _first_status(*codes: object) -> int | None:
    return next((status for status in map(_status, codes) if status is not None), None)


def _status(code: object) -> int | None:
    if isinstance(code, str) and re.fullmatch(r"[0-9]{3}", code):
        code = int(code)
    return int(code) if isinstance(code, int | float) and 400 <= code <= 599 else None


def _param(param: object) -> str | None:
    """The way to a parameter, where it is one; of pydantic's, from the body on, what has names of the API."""
    named = param if isinstance(param, list) else param.split(".") if isinstance(param, str) else []
    steps = [step for name in named for step in re.findall(r"\[[^\]]*\]?|[^\[]+", str(name))]
    way = ""
    for step in steps[:_MOST_STEPS]:
        if (known := _STEP.fullmatch(step)) is None:
            if isinstance(param, str):
                return None
            break
        if known[1]:
            way += f"[{known[1]}]"
        elif way or step != "body":
            way += f".{step}" if way else step
        if step in _OF_CALLERS:
            break
    return way or None


def _wait(given: Mapping[object, object], words: str) -> float | None:
    metadata, details = given.get("metadata"), given.get("details")
    places = [given, *(details if isinstance(details, list) else ()), metadata]
    stated = [
        value
        for place in places
        if isinstance(place, dict)
        for each in (place, place.get("headers"))
        if isinstance(each, dict)
        for name, value in each.items()
        if isinstance(name, str) and name.lower() in _WAITS
    ]
    for wait in stated:
        if isinstance(wait, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?s?", wait):
            return float(wait.removesuffix("s"))
        if isinstance(wait, int | float) and not isinstance(wait, bool) and wait >= 0:
            return float(min(wait, _LONGEST_WAIT_S))
    if (later := _LATER.search(words)) is not None:
        return sum(float(number) * _SECONDS[unit] for number, unit in _LENGTH.findall(later[1]))
    return None

"""Fields that many requests have, with what clients read about them.

What a text may be is said here for the document alone: the use cases refuse the rest, in words of their own.
"""

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from textllm_core.api_keys import MAX_NAME_CHARS as MAX_KEY_NAME_CHARS
from textllm_core.ids import USER_ID
from textllm_core.metadata import MAX_KEY_CHARS, MAX_PAIRS, MAX_VALUE_CHARS
from textllm_core.records.conversations import MAX_TAG_CHARS, MAX_TAGS, MAX_TITLE_CHARS
from textllm_core.rules.budgets import MIN_OUTPUT_TOKENS

ANY_ID: Final = "^[A-Za-z0-9_-]{1,64}$"
ANY_USER: Final = f"^{USER_ID}$"
_MODEL: Final = "^[A-Za-z0-9._:/@+-]{1,200}$"
_NOT_BLANK: Final = r"\S"

AnyUserId: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": ANY_USER})]
ForUser: TypeAlias = Annotated[
    AnyUserId,
    Meta(
        description="For whom; left out, the one that the key is bound to, or a new user, in whose place limits and "
        "budget count the key, without keys the client's address."
    ),
]
UserMessage: TypeAlias = Annotated[
    str, Meta(description="What the user says.", extra_json_schema={"minLength": 1, "pattern": _NOT_BLANK})
]
ConversationToGoOn: TypeAlias = Annotated[
    str,
    Meta(
        description="The conversation to go on with; left out, a new one begins.",
        extra_json_schema={"pattern": ANY_ID},
    ),
]
WantedModel: TypeAlias = Annotated[
    str, Meta(description="The name of the model.", extra_json_schema={"pattern": _MODEL})
]
MaxOutputTokens: TypeAlias = Annotated[
    int,
    Meta(
        description="The most the reply may have; lowered to the operator's ceiling and the budget.",
        ge=MIN_OUTPUT_TOKENS,
        le=2**31 - 1,
    ),
]
Temperature: TypeAlias = Annotated[
    float, Meta(description="0 to 2; reasoning models refuse it.", extra_json_schema={"minimum": 0, "maximum": 2})
]
OfUser: TypeAlias = Annotated[AnyUserId, Meta(description="Whose; left out, of all for whom the key acts.")]
Title: TypeAlias = Annotated[
    str,
    Meta(
        description="Its title; left out, the first words of its first message become it.",
        extra_json_schema={"minLength": 1, "maxLength": MAX_TITLE_CHARS, "pattern": _NOT_BLANK},
    ),
]
TagList: TypeAlias = Annotated[
    list[Annotated[str, Meta(extra_json_schema={"maxLength": MAX_TAG_CHARS, "pattern": _NOT_BLANK})]],
    Meta(
        description=f"Words to find it by: at most {MAX_TAGS} of 1 to {MAX_TAG_CHARS} characters, none twice.",
        extra_json_schema={"maxItems": MAX_TAGS, "uniqueItems": True},
    ),
]
Labels: TypeAlias = Annotated[
    dict[
        Annotated[str, Meta(extra_json_schema={"maxLength": MAX_KEY_CHARS})],
        Annotated[str, Meta(extra_json_schema={"maxLength": MAX_VALUE_CHARS})],
    ],
    Meta(
        description=f"Pairs of strings that mean something to you: at most {MAX_PAIRS}, keys of {MAX_KEY_CHARS} and "
        f"values of {MAX_VALUE_CHARS} characters.",
        extra_json_schema={"maxProperties": MAX_PAIRS},
    ),
]

KeyName: TypeAlias = Annotated[
    str,
    Meta(description="What its owner calls it.", extra_json_schema={"minLength": 1, "maxLength": MAX_KEY_NAME_CHARS}),
]
StreamFormat: TypeAlias = Annotated[
    Literal["text", "events"],
    Meta(description="`text`: an event a piece of text, and `[DONE]`; `events`: named and numbered events with JSON."),
]
Limit: TypeAlias = Annotated[int, Meta(description="At most so many.")]
Days: TypeAlias = Annotated[int, Meta(description="How many UTC days, today included.")]
After: TypeAlias = Annotated[
    str, Meta(description="The last one of the page before; left out, the list begins at its beginning.")
]

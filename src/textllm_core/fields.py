"""Fields that many records have, with what the outside reads about them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, TypeAlias, TypeVar

from msgspec import Meta, UnsetType

T = TypeVar("T")

Id: TypeAlias = Annotated[str, Meta(description="Its id.")]
UserId: TypeAlias = Annotated[str, Meta(description="The user.")]
ConversationId: TypeAlias = Annotated[str, Meta(description="The conversation.")]
ModelName: TypeAlias = Annotated[str, Meta(description="The name of the model.")]
FileKey: TypeAlias = Annotated[str, Meta(description="Its name in the storage, by which it is asked for.")]
FileName: TypeAlias = Annotated[str, Meta(description="What its owner calls it.")]
MediaType: TypeAlias = Annotated[str, Meta(description="What the file is, by its content.")]
SizeInBytes: TypeAlias = Annotated[int, Meta(description="In bytes.")]
Pages: TypeAlias = Annotated[int | UnsetType, Meta(description="How many pages the document has, where that is known.")]
FileWarnings: TypeAlias = Annotated[
    Sequence[str] | UnsetType, Meta(description="What may be wrong or missing in what the model was told of it.")
]
Text: TypeAlias = Annotated[str, Meta(description="What was said.")]
CreatedAt: TypeAlias = Annotated[datetime, Meta(description="When it was made, UTC.")]

Usd: TypeAlias = Annotated[Decimal, Meta(description="USD, exact.")]
EstimatedUsd: TypeAlias = Annotated[
    Decimal, Meta(description="The part of the cost that is an estimate: its usage was not stated by the provider.")
]
Estimated: TypeAlias = Annotated[
    bool, Meta(description="Whether the provider did not state the usage, so that it and the cost are an estimate.")
]
TokensRead: TypeAlias = Annotated[int, Meta(description="Tokens that the models read.")]
TokensWritten: TypeAlias = Annotated[int, Meta(description="Tokens that the models wrote.")]
# What is counted as messages; a list of messages has both parts of a turn.
Answered: TypeAlias = Annotated[
    int, Meta(description="Turns that were answered; a turn is what the user said together with its reply.")
]

Tags: TypeAlias = Annotated[
    Sequence[str], Meta(description="Words to find it by: at most 16 of 1 to 64 characters, none twice.")
]
Metadata: TypeAlias = Annotated[
    Mapping[str, str],
    Meta(
        description="Pairs of strings that mean something to you: at most 16, keys of 64 and values of 512 characters."
    ),
]

Listed: TypeAlias = Annotated[Sequence[T], Meta(description="What was asked for, in order.")]
HasMore: TypeAlias = Annotated[
    bool, Meta(description="Whether there are more behind the last one: ask for them with `after`.")
]

"""What a model thinks before it answers, or asks for a function."""

from msgspec import UNSET, UnsetType

from textllm_core.wire import Record


class Reasoning(Record, frozen=True, kw_only=True):
    """What a model thought before it said something, or asked for a call; its provider may want it back.

    Args:
        made_by: what stands for the provider and the model: nobody else is sent it. Empty: whoever brought it along did
            not say; then each provider is sent it that has such a form.
        content: JSON, in the form of the provider's API; over the Responses API `before` has the items before what
            follows, and `id` is that of what follows. Empty: nothing goes back.
        words: the same in words, as far as the model tells it, where the turn tells that.
    """

    made_by: str
    content: str
    words: str | UnsetType = UNSET


class ThoughtDelta(Record, frozen=True, gc=False):
    """The next piece of what the model thinks, in words, never empty; of a turn that tells that alone."""

    text: str


class Thought(Record, frozen=True):
    """What the model thought before the text that follows, as its provider wants it back; of such a turn alone."""

    reasoning: Reasoning

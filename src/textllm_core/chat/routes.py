"""Which model of which provider takes a turn, and which ones stand in where it cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from textllm_core.errors import InvalidRequestError
from textllm_core.ports.llm import LLM
from textllm_core.ports.transcript import Transcript
from textllm_core.records.messages import Message
from textllm_core.records.parts import InputImage
from textllm_core.rules.budgets import MIN_OUTPUT_TOKENS
from textllm_core.texts import listing

_ROUGHLY: Final = 1.25  # an estimate of tokens is rarely off by more
_BESIDE: Final = 64  # tokens that a provider adds around messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A model of a provider, as turns are sent to it.

    Args:
        model: its name for `llm` and in the books; empty where it is the model that was asked for.
        name: by which callers ask for it; empty: by `model`.
        llm: what answers.
        transcript: the provider's side of conversations; None where the history is sent with each turn.
        provider: the name that the ids of `transcript` begin with, and a slash; empty: they have none.
        context: tokens of the past, the turn and the reply; None: not known.
        shortest_reply, longest_reply: tokens that can be asked for at least, and at most; None: as the policy has it.
        first_token_timeout_s, silence_timeout_s: None: as the policy has them.
    """

    model: str = ""
    name: str = ""
    llm: LLM
    transcript: Transcript | None = None
    provider: str = ""
    context: int | None = None
    shortest_reply: int = MIN_OUTPUT_TOKENS
    longest_reply: int | None = None
    first_token_timeout_s: float | None = None
    silence_timeout_s: float | None = None

    def of(self, model: str) -> "Route":
        """The same provider's way to a model, by its own name for it."""
        return replace(self, model=f"{self.provider}/{model}" if self.provider else model)

    def longest(self, ceiling: int, *, input_tokens: int, estimate: int) -> int:
        """How many tokens a reply may have beside the input, where that leaves it any; at most `ceiling`.

        Args:
            input_tokens: of what is sent, an upper bound; it may be a multiple of `estimate`.
        """
        ceiling = ceiling if self.longest_reply is None else min(ceiling, self.longest_reply)
        if self.context is None or input_tokens + ceiling <= self.context:
            return ceiling
        room = max(self.context - input_tokens, self.context - int(estimate * _ROUGHLY) - _BESIDE)
        return min(ceiling, max(room, MIN_OUTPUT_TOKENS))

    def reads(self, message: Message) -> bool:
        """Whether it reads the images and files of a message."""
        for part in message.stored_parts:
            if not (self.llm.reads_images if isinstance(part, InputImage) else self.llm.reads_files):
                return False
        return True

    def keeps(self, transcript_id: str) -> bool:
        """Whether a transcript is one of this provider's, so that it may be sent there."""
        if self.transcript is None:
            return False
        owner, slash, _ = transcript_id.partition("/")
        return (owner if slash else "") == self.provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """The models that may be asked.

    Args:
        named: by the names that callers use, the model that is asked and those that stand in for it, in their order.
        providers: by their names, the ways to them, for models that have no name here: `PROVIDER/MODEL`.
        otherwise: the provider of a model without that; None: what is not named here is refused.
    """

    named: Mapping[str, Sequence[Route]]
    providers: Mapping[str, Route]
    otherwise: Route | None

    @classmethod
    def of_one(cls, llm: LLM, transcript: Transcript | None) -> "Routes":
        """All models are one provider's."""
        return cls(named={}, providers={}, otherwise=Route(llm=llm, transcript=transcript))

    @property
    def names(self) -> Sequence[str] | None:
        """The names that there are; None where any may be one."""
        return tuple(self.named) if self.otherwise is None else None

    def to(self, model: str) -> Sequence[Route]:
        """The model that is asked, and those that stand in for it.

        Raises:
            InvalidRequestError: there is none of this name.
        """
        if (named := self.named.get(model)) is not None:
            return named
        if self.otherwise is None:
            raise InvalidRequestError.of("model", f"no model has this name; there are: {listing(tuple(self.named))}")
        provider, slash, name = model.partition("/")
        if slash and name and (way := self.providers.get(provider)) is not None:
            return (way.of(name),)
        return (self.otherwise.of(model),)

    def called(self, model: str, *, asked: str) -> str:
        """The name by which callers can ask for the model that has answered.

        Args:
            model: its name in the books, in the provider's own words: often that of a dated version.
            asked: the name of the model that was asked for.
        """
        routes = self.named.get(asked)
        if routes is None:
            return model if self.otherwise is not None else asked
        whose = model.partition("/")[0]

        def likeness(route: Route) -> tuple[int, bool]:
            return len(route.model) if model.startswith(route.model) else 0, route.provider == whose

        return max(routes, key=likeness).name  # the first, where none is like it

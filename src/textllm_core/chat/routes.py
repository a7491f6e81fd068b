"""Which model of which provider takes a turn, and which ones stand in where it cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import inf, log
from typing import Final

from msgspec import structs

from textllm_core.errors import InvalidRequestError
from textllm_core.money import Price
from textllm_core.ports.llm import LLM
from textllm_core.ports.transcript import Transcript
from textllm_core.records.hosted import HostedTerms, HostedTool, HostedTools, NamedThing
from textllm_core.records.messages import Message
from textllm_core.records.parts import InputImage
from textllm_core.rules.budgets import MIN_OUTPUT_TOKENS, NO_TOOLS, ToolBound
from textllm_core.texts import listing

_ROUGHLY: Final = 1.25  # an estimate of tokens is rarely off by more
_INSTEAD: Final[Mapping[str, str]] = {
    "file_search": "name another vector store",
    "code_interpreter": 'send container {"type": "auto"} without file_ids',
    "mcp": "name another server",
}
_BESIDE: Final = 64  # tokens that a provider adds around messages


@dataclass(frozen=True, slots=True)
class Reads:
    """What the models of a name take, whichever of them is asked; as `LLM` has it."""

    images: bool
    files: bool


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
        hosted: tools on the provider's own servers that its operator allows, and on which terms.
        first_token_timeout_s, silence_timeout_s: None: as the policy has them.
        stage: those of a lower one are asked first.
        weight: its share of the turns, beside the others of its stage; 0: it only stands in for them.
        hasty: is asked in the place of `llm` where others stand in for it; None: `llm` is.
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
    stage: int = 0
    weight: int = 0
    hasty: LLM | None = None
    hosted: Mapping[str, HostedTerms] = field(default_factory=dict)

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

    def offers(self, hosted: HostedTools) -> bool:
        """Whether all of these tools may be used there."""
        return hosted.kinds <= self.hosted.keys()

    def refused(self, hosted: HostedTools, tenant_id: str) -> tuple[HostedTool, NamedThing] | None:
        """The first thing that these tools may not be used with by the tenant, each of which it offers; None: none."""
        things = ((tool, thing) for tool in hosted.tools for thing in tool.things)
        return next((each for each in things if not self.hosted[each[0].kind].permits(each[1], tenant_id)), None)

    def priced(self, price: Price, hosted: HostedTools | None) -> Price:
        """What its model charges, and those of its tools that are asked for, each of which it offers."""
        if hosted is None:
            return price
        return structs.replace(price, calls={kind: self.hosted[kind].price for kind in sorted(hosted.kinds)})

    def tool_bound(self, hosted: HostedTools | None, *, most_calls: int) -> ToolBound:
        """What these tools may add to a turn."""
        if hosted is None:
            return NO_TOOLS
        terms = [self.hosted[kind] for kind in hosted.kinds]
        listing = [self.hosted[tool.kind].tokens for tool in hosted.tools if tool.kind == "mcp"]
        return ToolBound(
            calls=most_calls,
            tokens=max(each.tokens for each in terms),
            listed=sum(listing),
            price=max(each.price for each in terms),
        )

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

    def lot(self, by: str) -> float:
        """What it draws in the name of `by`: of many names, its share of all weights are those in which it draws least.

        It draws the same each time, in each process, and whatever the others weigh: a change of weights moves no more
        names than it must. Source: weighted rendezvous hashing.
        """
        if self.weight == 0:
            return inf
        drawn = int.from_bytes(sha256(f"{self.model}\0{by}".encode(errors="surrogatepass")).digest()[:8])
        return -log((drawn + 1) / 2**64) / self.weight


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

    def keep(self, transcript_id: str) -> bool:
        """Whether any of them is a way to the provider of this transcript."""
        ways = (*self.providers.values(), *(route for named in self.named.values() for route in named))
        return any(way.keeps(transcript_id) for way in ways) or (
            self.otherwise is not None and self.otherwise.keeps(transcript_id)
        )

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

    def reads(self, model: str) -> Reads:
        """What whoever is asked first for this name takes: images that one of them reads, files that all of them do.

        Raises:
            InvalidRequestError: as `to`.
        """
        routes = self.to(model)
        first = [route.llm for route in routes if route.stage == 0 and route.weight > 0] or [routes[0].llm]
        return Reads(any(llm.reads_images for llm in first), all(llm.reads_files for llm in first))

    def offering(self, model: str, hosted: HostedTools | None, *, tenant_id: str) -> Sequence[Route]:
        """As `to`: those of them where these tools of the provider's may be used by the tenant.

        Raises:
            InvalidRequestError: as `to`, or there are none.
        """
        routes = self.to(model)
        if hosted is None:
            return routes
        offering = [route for route in routes if route.offers(hosted)]
        if not offering:
            allowed = {kind for route in routes for kind in route.hosted}
            tool = next((tool for tool in hosted.tools if tool.kind not in allowed), hosted.tools[0])
            raise InvalidRequestError.of(
                f"{tool.place}.type" if "[" in tool.place else tool.place,
                f"{tool.type} runs on the provider's own servers, and is not allowed for the model {model}; bring a "
                f"function, or ask the operator, who allows it with its price (the setting hosted_tools.{tool.kind})",
            )
        refused = [route.refused(hosted, tenant_id) for route in offering]
        if refused[0] is not None and None not in refused:
            tool, thing = refused[0]
            raise InvalidRequestError.of(
                thing.place,
                f"{thing.told} is not among what {tool.type} may be used with here; {_INSTEAD[tool.kind]}, or ask the "
                f"operator, who allows it (the setting hosted_tools.{tool.kind}.allowed)",
            )
        return [route for route, fault in zip(offering, refused, strict=True) if fault is None]

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


def in_order(
    routes: Sequence[Route], *, by: str, message: Message, transcript_id: str | None, must_stay: bool
) -> Sequence[Route]:
    """Who is asked for a turn, and who stands in, in their order.

    Args:
        by: what stays at one model, such as a conversation's id.
        transcript_id: its provider's side, where it has one. It is gone on with rather than made anew.
        must_stay: there is no other copy of what was said.
    """
    if len(routes) == 1:
        return routes

    def place(route: Route) -> tuple[bool, int, bool, float]:
        has_begun = transcript_id is not None and route.keeps(transcript_id)
        stays = has_begun and (must_stay or (route.stage == 0 and route.weight > 0))
        return not stays, route.stage, not route.reads(message), route.lot(by)

    *followed, last = sorted(routes, key=place)
    return [*(replace(route, llm=route.hasty or route.llm) for route in followed), last]

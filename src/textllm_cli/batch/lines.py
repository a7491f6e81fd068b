"""The lines of a batch: what goes in, and what came out of it before."""

import hashlib
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from textllm_core.errors import InvalidRequestError
from textllm_core.money import ZERO
from textllm_core.records.messages import Reply, TurnOptions
from textllm_core.wire import to_json

_MOST_FAULTS_SHOWN: Final = 10
_DOS_END: Final = b"\x1a"


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of the input: the fields of `POST /chat`, and files of this machine.

    Args:
        id: yours, which comes back with the answer.
        files, images: paths, from the folder of the input on.
    """

    message: str
    id: str | int | None = None
    conversation_id: str | None = None
    user_id: str | None = None
    model: str | None = None
    prompt: str | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: float | None = None
    metadata: dict[str, str] | None = None
    files: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    def options(self, otherwise: TurnOptions) -> TurnOptions:
        """How it is to be answered; what it leaves open is as the command says."""
        own_prompt = self.prompt is not None or self.instructions is not None
        return TurnOptions(
            model=self.model or otherwise.model,
            prompt=self.prompt if own_prompt else otherwise.prompt,
            instructions=self.instructions if own_prompt else otherwise.instructions,
            max_output_tokens=self.max_output_tokens or otherwise.max_output_tokens,
            temperature=otherwise.temperature if self.temperature is None else self.temperature,
            metadata=self.metadata,
        )


class Line(Struct, frozen=True, kw_only=True):
    """A line of the input that has a turn, with its number from 1."""

    number: int
    asked: Asked
    digest: str

    def key(self, attempt: int) -> str:
        """The idempotency key of one attempt, by which a repeat is told from a new turn."""
        return f"batch-{self.digest}-{attempt}"


class Outcome(Struct, frozen=True, kw_only=True):
    """A line of the output.

    Args:
        line: the number of the input's line, from 1; `id`: as it has it.
        cost: USD that it has cost: its reply, and what lost attempts were charged for, or may have been at most where
            --max-cost is to be kept; None: nobody knows.
        estimated: some of it is an estimate, or such a most.
        reply: in the shape of `POST /chat`; `error`: a problem document. One of them is there.
    """

    line: int
    id: str | int | UnsetType = UNSET
    cost: Decimal | None
    estimated: bool = False
    reply: Reply | UnsetType = UNSET
    error: Mapping[str, object] | UnsetType = UNSET


class _Earlier(Struct, frozen=True):
    line: int
    cost: Decimal | None
    reply: msgspec.Raw = msgspec.Raw()


def lines_of(content: bytes, source: str, user_id: str, options: TurnOptions) -> Sequence[Line]:
    """All lines that are not blank: each a JSON object with the fields of `Asked`, or a text.

    Args:
        source: the file, by which lines of two files that say the same are told apart.
        user_id, options: for whom, and how, lines are answered that leave it open: asked otherwise, a line is another
            one.
    Raises:
        InvalidRequestError: some cannot be read; its text says which, and why.
    """
    lines, faults = [], []
    content = content.removeprefix(BOM_UTF8).removesuffix(_DOS_END)  # as Windows writes
    for number, text in enumerate(content.split(b"\n"), 1):
        if not text.strip():
            continue
        try:
            asked = msgspec.json.decode(text, type=Asked | str)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            faults.append(f"line {number}: {error}")
            continue
        where = f"{source}\0{number}\0{user_id}\0".encode(errors="surrogatepass")
        of = where + to_json(options) + text.strip()
        turn = Asked(message=asked) if isinstance(asked, str) else asked
        lines.append(Line(number=number, asked=turn, digest=hashlib.sha256(of).hexdigest()))
    if faults:
        more = len(faults) - _MOST_FAULTS_SHOWN
        shown = "\n".join(f"  {fault}" for fault in faults[:_MOST_FAULTS_SHOWN])
        rest = f"\n  and {more} more" if more > 0 else ""
        hint = 'A line is a text in quotes, or an object as {"message": "Hello"}.'
        raise InvalidRequestError(f"Nothing was asked: {len(faults)} lines cannot be read. {hint}\n{shown}{rest}")
    return lines


def answered_in(output: Path) -> Mapping[int, Decimal | None]:
    """The lines that were answered before, with what they cost as far as that is known; all others leave the file.

    A line that a killed process left half written is one of those.
    Raises:
        OSError: the file cannot be read or written.
    """
    kept: dict[int, tuple[Decimal | None, bytes]] = {}
    content = output.read_bytes() if output.exists() else b""
    for text in content.split(b"\n"):
        try:
            earlier = msgspec.json.decode(text, type=_Earlier)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if bytes(earlier.reply):
            kept.setdefault(earlier.line, (earlier.cost, text))
    clean = b"".join(text + b"\n" for _, text in kept.values())
    if clean != content:
        partial = output.with_name(f".{output.name}.part")
        partial.write_bytes(clean)
        partial.replace(output)
    return {number: cost for number, (cost, _) in kept.items()}


def spent_on(answered: Mapping[int, Decimal | None]) -> Decimal:
    """What they cost together, as far as that is known."""
    return sum(filter(None, answered.values()), ZERO)

"""Where Azure has its models: by a name of the operator's choice, and in its older API at an address of their own."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from msgspec import Struct


class Deployments(Struct, frozen=True):
    """The deployments of a resource; of a server that has none, nothing.

    Args:
        names: by model, where they differ.
        api_version: goes with each call, and gives each deployment an address of its own for chat completions; None:
            they share one.
    """

    names: Mapping[str, str] = {}
    api_version: str | None = None

    def name(self, model: str) -> str:
        """What the deployment of a model is called."""
        return self.names.get(model, model)

    @property
    def responses(self) -> str:
        """The path of all models' responses."""
        return f"/responses{self.query}"

    @property
    def query(self) -> str:
        """What follows the path of a call."""
        return "" if self.api_version is None else f"?api-version={quote(self.api_version)}"

    def chat_completions(self, model: str) -> str | None:
        """The path of a model's chat completions, where it is one of its own."""
        if self.api_version is None:
            return None
        return f"/deployments/{quote(self.name(model), safe='')}/chat/completions{self.query}"


NO_DEPLOYMENTS: Final = Deployments()

"""The models that can be asked, with what they cost and can read; no provider is asked for them."""

from textllm_adapters.settings import Settings
from textllm_adapters.wiring.catalogue import Catalogue, reads_files, reads_images
from textllm_adapters.wiring.models import own_model_of, pricing_of
from textllm_core.errors import InvalidRequestError
from textllm_core.records.models import ListedModel, ModelList, ModelPrice

_LONGEST_NAME = 200  # characters; what is longer is refused wherever it is asked for


class ListedModels:
    """What the settings say of models."""

    def __init__(self, settings: Settings) -> None:
        own = own_model_of(settings)
        self._settings, self._catalogue, self._pricing = settings, Catalogue(settings), pricing_of(settings, own)
        self._default = settings.model if settings.models or own is None else own
        priced = [name for name in settings.prices if not name.endswith("*")]
        others = [] if own is not None else priced
        self._names = tuple(settings.models or dict.fromkeys([self._default, *others]))

    def all(self) -> ModelList:
        """Those that the settings name: the one that answers unless another is named, and those with a price."""
        return ModelList(data=[self._listed(name) for name in self._names])

    def find(self, name: str) -> ListedModel | None:
        """The model that can be asked by a name; None: there is none, or nobody knows what it costs."""
        if name in self._names:
            return self._listed(name)
        if self._settings.models or len(name) > _LONGEST_NAME:
            return None
        found = self._listed(name)
        return None if found.price is None else found

    def _listed(self, name: str) -> ListedModel:
        models = self._catalogue.asked_by(name)
        providers = [self._settings.all_providers[self._catalogue.provider_of(model)] for model in models]
        return ListedModel(
            id=name,
            owned_by=self._catalogue.provider_of(name),
            is_default=name == self._default,
            price=self._price(*models),
            reads_images=any(map(reads_images, providers)),
            reads_files=all(map(reads_files, providers)),
        )

    def _price(self, *models: str) -> ModelPrice | None:
        try:
            return ModelPrice.of(*(self._pricing.price(self._catalogue.model_of(model)) for model in models))
        except InvalidRequestError:
            return None


def models_of(settings: Settings) -> ModelList:
    """As `ListedModels.all`."""
    return ListedModels(settings).all()


async def list_models(settings: Settings) -> ModelList:
    """As `models_of`; as a call, since a server in this place has to be asked."""
    return models_of(settings)

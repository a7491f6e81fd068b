"""The settings of one process: read from files and the environment, checked as a whole, then never changed."""

from textllm_adapters.settings.problems import Problem, SettingsError
from textllm_adapters.settings.records import Logging, ModelPrice, Pricing, S3Settings, Secret, Settings
from textllm_adapters.settings.sources import CONFIG_KEYS, ENVIRONMENT, SECRET_FILES, load_settings

__all__ = [
    "CONFIG_KEYS",
    "ENVIRONMENT",
    "SECRET_FILES",
    "Logging",
    "ModelPrice",
    "Pricing",
    "Problem",
    "S3Settings",
    "Secret",
    "Settings",
    "SettingsError",
    "load_settings",
]

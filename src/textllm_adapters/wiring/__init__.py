"""The composition root: the one place that knows which adapter keeps which port."""

from textllm_adapters.settings import Settings, load_settings
from textllm_adapters.wiring.applications import (
    config_in_force,
    open_administration,
    open_conversations,
    open_files,
    open_textllm,
    try_out,
)
from textllm_adapters.wiring.asking import ask_providers
from textllm_adapters.wiring.blocking import SyncTextLLM, open_textllm_sync
from textllm_adapters.wiring.checks import allowed_tools, check, notices
from textllm_adapters.wiring.listed_models import ListedModels, list_models, models_of
from textllm_adapters.wiring.models import public_settings
from textllm_adapters.wiring.providers import fetch_model
from textllm_adapters.wiring.storage import database_revision, database_steps, upgrade_database
from textllm_adapters.wiring.upkeep import health, run_jobs

__all__ = [
    "ListedModels",
    "Settings",
    "SyncTextLLM",
    "allowed_tools",
    "ask_providers",
    "check",
    "config_in_force",
    "database_revision",
    "database_steps",
    "fetch_model",
    "health",
    "list_models",
    "load_settings",
    "models_of",
    "notices",
    "open_administration",
    "open_conversations",
    "open_files",
    "open_textllm",
    "open_textllm_sync",
    "public_settings",
    "run_jobs",
    "try_out",
    "upgrade_database",
]

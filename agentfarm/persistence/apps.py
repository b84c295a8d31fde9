"""Django knows the persistence for its migrations alone: they own the schema."""

from django.apps import AppConfig


class PersistenceConfig(AppConfig):
    name = "agentfarm.persistence"
    label = "persistence"
    verbose_name = "Persistence"

"""Django knows the API for its one command: serve."""

from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "agentfarm.api"
    label = "agentfarm_api"
    verbose_name = "API"

"""`migrate`, as the role that owns the schema (DATABASE_OWNER_URL). All else of the command is Django's."""

from argparse import ArgumentParser

from django.conf import settings
from django.core.management.commands.migrate import Command as DjangosMigrate


class Command(DjangosMigrate):
    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        if "owner" in settings.DATABASES:
            parser.set_defaults(database="owner")

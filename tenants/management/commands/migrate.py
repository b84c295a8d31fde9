"""`migrate`, as the role that owns the schema (DATABASE_OWNER_URL). All else of the command is Django's."""

from django.conf import settings
from django.core.management.base import CommandParser
from django.core.management.commands.migrate import Command as DjangosMigrate


class Command(DjangosMigrate):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        if "owner" in settings.DATABASES:
            parser.set_defaults(database="owner")

"""Django's users and groups, with what is done to them recorded; and who logged in, or failed to."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.dispatch import receiver

from tenants.admin.base import Audited
from tenants.models import record

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class FarmUserAdmin(Audited, UserAdmin):
    pass


@admin.register(Group)
class FarmGroupAdmin(Audited, GroupAdmin):
    pass


@receiver(user_logged_in)
def _record_login(user: Any, **_: object) -> None:
    record(user.get_username(), "logged in", "user", user.pk)


@receiver(user_login_failed)
def _record_failure(**_: object) -> None:
    # What was typed may be a password in the wrong field: it is not written down.
    record("somebody", "failed to log in", "user", "unknown")

"""Django's admin with the farm's own site: in INSTALLED_APPS instead of django.contrib.admin.

Not in apps.py, where Django would take it for the tenants' own; not in admin/, which needs the models.
"""

from django.contrib.admin.apps import AdminConfig


class FarmAdminConfig(AdminConfig):
    default_site = "tenants.site.FarmAdminSite"

"""Django's settings. What an operator chooses is in conf.py; here is what follows from it.

Django serves the admin, the API documents and the JSON endpoints. It owns the migrations; the hot tables are written
through agentfarm.persistence alone.
"""

from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from agentfarm.conf import settings as farm_settings
from agentfarm.telemetry.logs import logging_config

_farm = farm_settings()

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = _farm.secret_key.get_secret_value()
DEBUG = _farm.debug
ALLOWED_HOSTS = list(_farm.allowed_hosts)
# The admin behind a proxy that ends TLS: its form posts come from the public address.
CSRF_TRUSTED_ORIGINS = [_farm.public_url] if _farm.public_url else []
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _farm.public_url.startswith("https://") else None
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _farm.public_url.startswith("https://")
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "tenants",
    "agentfarm.persistence",
    "agentfarm.api",
    "ninja",  # serves Swagger's files itself: /docs asks no other host
    "tenants.admin_config.FarmAdminConfig",  # django.contrib.admin, with the farm's own site
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "agentfarm.api.middleware.Problems",
    "django.middleware.security.SecurityMiddleware",
    "agentfarm.api.static.StaticFiles",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "agentfarm.urls"
ASGI_APPLICATION = "agentfarm.asgi.application"
WSGI_APPLICATION = "agentfarm.wsgi.application"
APPEND_SLASH = True  # for the admin's pages; the API's paths end without one

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _database(url: SecretStr) -> dict[str, Any]:
    """DATABASES' entry for a postgresql:// URL, of one host or several; its query becomes the driver's options."""
    parts = conninfo_to_dict(url.get_secret_value())
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.pop("dbname", ""),
        "USER": parts.pop("user", ""),
        "PASSWORD": parts.pop("password", ""),
        "HOST": parts.pop("host", ""),
        "PORT": str(parts.pop("port", "")),
        # Under ASGI a connection belongs to a thread that ends with its request: keeping it would lose it.
        "CONN_MAX_AGE": 0,
        "OPTIONS": {"connect_timeout": int(_farm.connect_timeout_seconds), **parts},
    }


# The admin's own role, which sees every tenant; the API reads and writes through agentfarm.persistence, as farm_app.
DATABASES = {"default": _database(_farm.database_admin_url or _farm.database_owner_url or _farm.database_url)}
if _farm.database_owner_url is not None:
    DATABASES["owner"] = _database(_farm.database_owner_url)  # `migrate` takes this one
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # found in the packages at start: nothing to collect

# The edge (agentfarm/api/edge.py) has refused what is larger, before it was read.
DATA_UPLOAD_MAX_MEMORY_SIZE = FILE_UPLOAD_MAX_MEMORY_SIZE = _farm.max_body_bytes

LOGGING = logging_config(level=_farm.log_level, as_json=_farm.log_json)

"""Where requests go: the admin, and everything else is the API."""

from django.contrib import admin
from django.urls import path

from agentfarm.api.app import api

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", api.urls),
]

handler400 = "agentfarm.api.problems.bad_request"
handler404 = "agentfarm.api.problems.not_found"
handler500 = "agentfarm.api.problems.server_error"

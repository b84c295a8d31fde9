"""The one task, in a process of its own: importing the app sets up the log and loads the graphs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentfarm.ids import new_id

ROOT = Path(__file__).parents[3]

#: Calls the task as a worker would, over a flow that only notes what it was asked.
SCRIPT = """
import json, sys
from agentfarm import wiring
from agentfarm.errors import StoreUnavailable
from agentfarm.flow import step
from workers.celery import app
from workers import tasks

given = json.loads(sys.argv[1])
told = {}

def execute_node(farm, message, *, redelivered, tell):
    told.update(run=message.run_id.hex, redelivered=redelivered)
    if given.get("down"):
        raise StoreUnavailable
    return "committed"

step.execute_node = execute_node
tasks.farm = lambda: None
task = app.tasks["agentfarm.execute_node"]
task.push_request(delivery_info={"redelivered": given["redelivered"]}, retries=given["retries"], called_directly=False,
                  id="1", args=[given["body"]], kwargs={})
try:
    told["answer"] = task.run(given["body"])
except Exception as error:
    told["raised"] = type(error).__name__
    told["text"] = str(error)
print(json.dumps(told))
"""


def call(body: object, *, redelivered: bool = False, retries: int = 0, down: bool = False) -> dict[str, Any]:
    given = json.dumps({"body": body, "redelivered": redelivered, "retries": retries, "down": down})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, given],
        cwd=ROOT,
        env={
            "DATABASE_URL": "postgresql://farm_app:none@127.0.0.1:1/none",
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "CELERY_BROKER_URL": "redis://127.0.0.1:1/1",
            "AGENTFARM_SECRET_KEY": "for-tests-only",
            "AGENTFARM_CONFIG": str(ROOT / "tests/smoke/langgraph.json"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def a_body() -> dict[str, object]:
    names = ("tenant", "run", "checkpoint", "execution")
    return {"v": 1, "home": "main", **{name: new_id().hex for name in names}}


@pytest.mark.parametrize(("redelivered", "retries", "told"), [(False, 0, False), (True, 0, True), (False, 1, True)])
def test_a_message_that_came_before_is_told_as_such(redelivered: bool, retries: int, told: bool) -> None:
    body = a_body()

    answer = call(body, redelivered=redelivered, retries=retries)

    assert answer == {"run": body["run"], "redelivered": told, "answer": "committed"}


def test_a_database_that_does_not_answer_is_asked_again_a_bounded_number_of_times() -> None:
    # The last try: Celery would publish another message before it, and there is no broker here.
    assert call(a_body(), retries=5, down=True)["raised"] == "StoreUnavailable"


def test_a_message_that_cannot_be_read_is_not_tried_again() -> None:
    answer = call({"v": 1, "home": "main", "tenant": "what-somebody-said"})

    assert answer["raised"] == "Malformed"
    assert "what-somebody-said" not in answer["text"]

"""`make run`: servers up, database migrated, two tenants made, all processes kept running until Ctrl-C."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from agentfarm.errors import Misconfigured
from agentfarm.local import farm
from agentfarm.local.address import Address, choose_address
from agentfarm.local.banner import render_banner
from agentfarm.local.farm import Access
from agentfarm.local.look import looking
from agentfarm.local.services import Broker, Services
from agentfarm.local.state import locked, make_folder
from agentfarm.local.supervisor import Supervisor, only_one, stop_signals

#: For the first answer of the web and the first beat of each worker. One that cannot start ends, and is seen at once;
#: this is for one that hangs, on a machine so busy that a healthy one takes minutes.
READY_SECONDS = 600.0

#: Between two looks whether the servers are there.
MIND_SECONDS = 2.0

#: Between two words about what is waited for.
TELL_SECONDS = 15.0

#: The threads' workers, and each child of the prefork worker.
WORKER_PROCESSES = farm.WORKERS + farm.CPU_SLOTS


@dataclass(frozen=True, slots=True)
class Options:
    """port: None is 2024. any_port: a free one where that is taken. quiet: print no key and no password."""

    folder: Path
    config: Path
    host: str = "127.0.0.1"
    port: int | None = None
    any_port: bool = False
    broker: Broker = "redis"
    quiet: bool = False


def run(options: Options) -> int:
    """The exit code, after Ctrl-C or SIGTERM. Raises Misconfigured for what the user can mend."""
    farm.check_choices(options.config, options.host, options.port, os.environ)
    services = Services(options.folder, broker=options.broker)
    make_folder(services.folder)
    with only_one(services.folder), _interruptible(), _stopping(services):
        began = time.monotonic()
        with locked(services.folder) as state:
            address = choose_address(state, options.host, options.port, any_port=options.any_port)
        for line in services.start():
            _say(began, line)
        environment = farm.make_environment(services, address, options.config)
        farm.check_config(environment)
        farm.migrate(environment)
        access = farm.set_up(environment, services.folder)
        _check_anonymous(environment)
        farm.write_access(services.folder, address, access)
        _say(began, "the database is migrated, the tenants demo and other are there")
        supervisor = Supervisor(farm.programs(address), environment, services.folder, farm.PROJECT, say=_now)
        with stop_signals(supervisor):
            return _supervise(supervisor, services, address, None if options.quiet else access, began)


def _supervise(
    supervisor: Supervisor, services: Services, address: Address, access: Access | None, began: float
) -> int:
    try:
        supervisor.start()
        if not _become_ready(supervisor, address):
            return 0  # told to stop before that
        _say(began, f"{', '.join(program.name for program in supervisor.programs)} are running")
        if access is not None:
            info = farm.get_json(address, "/info") or {}
            print(render_banner(address, access, info, supervisor.environment, supervisor.folder), flush=True)
        config = supervisor.environment["AGENTFARM_CONFIG"]
        places = {"url": address.url, "flower": address.flower_url, "admin": f"{address.url}/admin/", "config": config}
        supervisor.note(ready=True, **places)
        supervisor.watch(_minding(services))
        return 0
    finally:
        print("\nstopping: running nodes may end first; Ctrl-C again ends them at once", flush=True)
        supervisor.stop()


def _minding(services: Services) -> Callable[[], bool]:
    """For `watch`, and never so: servers that are gone are started again."""
    due = 0.0

    def mind() -> bool:
        nonlocal due
        if time.monotonic() < due:
            return False
        due = time.monotonic() + MIND_SECONDS
        try:
            for name in services.start_again():
                _now(f"{name} was gone; it runs again on the data that it left")
        except Misconfigured as error:
            due = time.monotonic() + TELL_SECONDS
            _now(f"a server is gone and does not start: {error}")
        return False

    return mind


def _check_anonymous(environment: Mapping[str, str]) -> None:
    """Raises Misconfigured where requests without a key would act for a tenant that is not there."""
    slug = environment.get("ANONYMOUS_TENANT")
    if not slug:
        return
    with looking(environment["DATABASE_ADMIN_URL"]) as look:
        if not look.has_tenant(slug):
            raise Misconfigured(
                f"ANONYMOUS_TENANT={slug!r} is not a tenant of this farm. Its value is a tenant's slug, as the admin "
                "lists them: `demo` is there from the start. Unset it to let nobody in without a key."
            )


def _become_ready(supervisor: Supervisor, address: Address) -> bool:
    """Whether it did, before it was told to stop. Raises Misconfigured with the log of what does not start."""
    with looking(supervisor.environment["DATABASE_ADMIN_URL"]) as look:
        told_at = time.monotonic()

        def ready() -> bool:
            nonlocal told_at
            if child := supervisor.hopeless():
                raise Misconfigured(
                    f"{child.program.name} does not start. The last of {child.log}:\n  {supervisor.last_words(child)}"
                )
            answers, beating = farm.get_json(address, "/ok") is not None, look.living_workers()
            if answers and beating >= WORKER_PROCESSES:
                return True
            if time.monotonic() - told_at > TELL_SECONDS:
                told_at = time.monotonic()
                web = "answers" if answers else "does not answer yet"
                _now(f"starting: web {web}, {beating} of {WORKER_PROCESSES} worker processes are ready")
            return False

        if supervisor.watch(ready, seconds=READY_SECONDS):
            return True
        if supervisor.told_to_stop:
            return False
        raise Misconfigured(
            f"Web and workers were not ready within {READY_SECONDS:.0f} s ({look.living_workers()} of "
            f"{WORKER_PROCESSES} worker processes are). Their logs: {supervisor.folder / 'logs'}"
        )


@contextmanager
def _stopping(services: Services) -> Iterator[None]:
    try:
        yield
    finally:
        if stopped := services.stop():
            print(f"stopped {', '.join(stopped)}", flush=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """While servers start, being asked to end is KeyboardInterrupt, whichever signal asks."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(began: float, line: str) -> None:
    print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)


def _now(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)

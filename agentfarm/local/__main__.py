"""python -m agentfarm.local: the farm on one machine.

    run      bring everything up and keep it running until Ctrl-C
    demo     bring everything up, show what it promises, end it
    up       start PostgreSQL and Valkey (or RabbitMQ) only; print how to reach them
    env      print how to reach them: DATABASE_URL, REDIS_URL, …, as a shell reads it
    status   what runs; exit code 0 if all of it does
    stop     end what runs, keep the data
    reset    end what runs and delete the data

DATABASE_URL, REDIS_URL or CELERY_BROKER_URL in the environment: that server is yours; it is used and not started.
"""

import argparse
import json
import os
import shlex
import signal
import sys
from pathlib import Path

from agentfarm.errors import Misconfigured
from agentfarm.local import farm
from agentfarm.local.address import DEFAULT_PORT
from agentfarm.local.processes import wait_gone
from agentfarm.local.run import Options, run
from agentfarm.local.services import DEFAULT_FOLDER, Services
from agentfarm.local.state import FILE
from agentfarm.local.supervisor import read_supervisor

COMMANDS = ("run", "demo", "up", "env", "status", "stop", "reset")
STOP_SECONDS = 60.0


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        return _commands(options)
    except Misconfigured as error:
        print(f"agentfarm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m agentfarm.local", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="data, logs and ports (.farm)")
    parser.add_argument("--config", type=Path, help="langgraph.json of the graphs to serve (this project's)")
    parser.add_argument("--host", default="127.0.0.1", help="address of the API (127.0.0.1)")
    parser.add_argument("--port", type=int, help=f"port of the API ({DEFAULT_PORT})")
    parser.add_argument("--any-port", action="store_true", help="take a free port where that one is taken")
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis", help="redis: Valkey, from a wheel")
    parser.add_argument("--quiet", action="store_true", help="run: print no key and no password")
    parser.add_argument("--json", action="store_true", help="status as JSON")
    options = parser.parse_args(arguments)
    options.config = options.config or farm.PROJECT / "langgraph.json"
    return options


def _commands(options: argparse.Namespace) -> int:
    services = Services(options.folder, broker=options.broker)
    if options.command == "run":
        wanted = Options(
            folder=services.folder,
            config=options.config,
            host=options.host,
            port=options.port,
            any_port=options.any_port,
            broker=options.broker,
            quiet=options.quiet,
        )
        return run(wanted)
    if options.command == "demo":
        from agentfarm.local.demo import demo  # the SDK is not needed to stop a farm

        return demo(services.folder, options.config)
    if options.command == "up":
        print("\n".join(f"# {line}" for line in services.start()))
        return _print_environment(services, options.config)
    if options.command == "env":
        return _print_environment(services, options.config)
    if options.command == "status":
        return _status(services, as_json=options.json)
    if options.command == "reset":
        return _reset(services)
    print(_stop(services))
    return 0


def _print_environment(services: Services, config: Path) -> int:
    """Of a farm that runs the graphs that it serves are named, too; config: else."""
    servers = services.status()
    if not servers and not (services.folder / FILE).exists():
        raise Misconfigured(f"Nothing was ever started in {services.folder}: `make up`.")
    if down := [name for name, is_up in servers.items() if not is_up]:
        print(f"agentfarm: {' and '.join(down)} do not answer; `make up` starts them.", file=sys.stderr)
    served = {"AGENTFARM_CONFIG": read_supervisor(services.folder).get("config") or str(config.absolute())}
    for name, value in {**services.environment(), **farm.secrets_of(services.folder), **served}.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _status(services: Services, *, as_json: bool) -> int:
    servers, running = services.status(), read_supervisor(services.folder)
    if as_json:
        print(json.dumps({"folder": str(services.folder), "servers": servers, "farm": running}))
    else:
        print("\n".join(f"{name:<12} {'up' if is_up else 'down'}" for name, is_up in servers.items()) or "nothing")
        for name, pid in running.get("children", {}).items():
            print(f"{name:<12} pid {pid}")
        print(f"{'farm':<12} {running.get('url', 'starting') if running else 'down'}")
    return 0 if running and all(servers.values()) else 1


def _reset(services: Services) -> int:
    if not services.folder.exists():
        print(f"nothing to delete: there is no {services.folder}")
        return 0
    stopped = _stop(services)
    services.reset()
    print(f"{stopped}; deleted the farm's data in {services.folder}")
    return 0


def _stop(services: Services) -> str:
    """What was ended, in words."""
    if running := read_supervisor(services.folder):
        print(f"stopping the farm (pid {running['pid']}) …", flush=True)
        os.kill(running["pid"], signal.SIGTERM)
        if not wait_gone(running["pid"], seconds=STOP_SECONDS):
            raise Misconfigured(f"The farm (pid {running['pid']}) did not end within {STOP_SECONDS:.0f} s of SIGTERM.")
    stopped = services.stop()
    names = [*(["the farm"] if running else []), *stopped]
    return f"stopped {', '.join(names)}" if names else "nothing ran"


if __name__ == "__main__":
    sys.exit(main())

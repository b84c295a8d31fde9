"""The farm on one machine: real servers below `.farm/`, the processes of the product over them, and a demo.

    python -m agentfarm.local --help

    state       .farm/state.json: ports, passwords, where binaries are; one program at a time
    identity    PostgreSQL refuses to be root: who runs it instead
    binaries    where the servers' programs are
    processes   pids, ports, children that die with their parent
    postgres, valkey, rabbitmq      one server each: start, stop, is it there, its URL
    services    the servers together, and the environment that leads to them
    address     where the web listens, how it is reached, and by which names
    farm        the product's own processes, what they are started with, who may use them
    supervisor  keeps them running until it is told to stop
    banner      what `make run` prints once all is up
    run         `make run`: all of the above
    look        who executes what, asked of the database
    demo        `make demo`: the story of a run, told by running it
    __main__    the commands

Up to `services` all is standard library: the servers can be started before anything is configured. Production has
servers of its own and uses none of this.
"""

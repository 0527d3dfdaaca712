"""`cronspace COMMAND`: each command is a module, imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys

from app import __version__
from app.errors import CronspaceError

COMMANDS = {
    "dev": ("app.dev.supervisor", "everything on this machine: Redis, API, a worker, and a demo"),
    "api": ("app.main", "the API"),
    "worker": ("workers.main", "a worker"),
    "keys": ("app.cli.keys", "create, list and delete API keys"),
    "system": ("app.cli.system", "whether firing is held, and why; resume: go on"),
    "export": ("app.cli.exporting", "a workspace's settings and triggers, as a file"),
    "import": ("app.cli.importing", "put an exported workspace in the place of what is there"),
    "rotate-keys": (
        "app.rotate_keys",
        "encrypt what is stored with the first key (--decrypt: not at all)",
    ),
    "reshard": ("app.reshard", "NUMBER: move the workspaces to another number of shards"),
    "probe": ("app.probe", "does the API or worker of this container answer? for its HEALTHCHECK"),
}


def usage() -> str:
    """The help text."""
    lines = ["usage: cronspace COMMAND", ""]
    lines += [f"  {name:<13}{help}" for name, (_, help) in COMMANDS.items()]
    lines += ["", "Settings come from the environment: see .env.example."]
    return "\n".join(lines)


def main() -> None:
    """Run a command; what the user can mend is one line on stderr."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(usage())
    elif name in ("--version", "-V"):
        print(f"cronspace {__version__}")
    elif name in COMMANDS:
        try:
            importlib.import_module(COMMANDS[name][0]).run(rest)
        except CronspaceError as error:
            sys.exit(f"cronspace {name}: {error}")
        except KeyboardInterrupt:
            sys.exit(130)
    else:
        sys.exit(f"cronspace: unknown command {name!r}\n\n{usage()}")


if __name__ == "__main__":
    main()

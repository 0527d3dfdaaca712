"""`cronspace COMMAND`: each command is a module, imported only when it is asked for."""

from __future__ import annotations

import importlib
import os
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

# What is given to those that read the environment; the others have parsers of their own.
ARGUMENTS = {"api": "", "worker": "", "probe": "", "rotate-keys": " [--decrypt]", "reshard": " NUMBER"}
SETTINGS = "Settings come from the environment: see .env.example."


def usage() -> str:
    """The help text."""
    lines = ["usage: cronspace COMMAND", ""]
    lines += [f"  {name:<13}{help}" for name, (_, help) in COMMANDS.items()]
    lines += ["", "cronspace COMMAND --help tells more of one.", SETTINGS]
    return "\n".join(lines)


def usage_of(name: str) -> str:
    """The help text of a command without a parser."""
    return f"usage: cronspace {name}{ARGUMENTS[name]}\n\n  {COMMANDS[name][1]}\n\n{SETTINGS}"


def main() -> None:
    """Run a command; what the user can mend is one line on stderr."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(usage())
    elif name in ("--version", "-V"):
        print(f"cronspace {__version__}")
    elif name in ARGUMENTS and {"--help", "-h"} & set(rest):
        print(usage_of(name))
    elif name in COMMANDS:
        if rest and ARGUMENTS.get(name) == "":
            sys.exit(f"cronspace {name}: takes no arguments, and {rest[0]!r} is one. {SETTINGS}")
        try:
            importlib.import_module(COMMANDS[name][0]).run(rest)
            sys.stdout.flush()  # or what can't be written is told after the end, as nobody's error
        except OSError as error:
            if not COMMANDS[name][0].startswith("app.cli."):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it is tried again at the end
            if isinstance(error, BrokenPipeError):  # who reads has seen enough
                sys.exit(1)
            sys.exit(f"cronspace {name}: {error.strerror or error}")
        except CronspaceError as error:
            sys.exit(f"cronspace {name}: {error}")
        except KeyboardInterrupt:
            sys.exit(130)
    else:
        sys.exit(f"cronspace: unknown command {name!r}\n\n{usage()}")


if __name__ == "__main__":
    main()

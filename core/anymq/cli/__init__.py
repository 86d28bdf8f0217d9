"""The command `anymq`: the terminal's way to publish, consume, operate and run.

It stands on the public interface, as an application does; `import anymq` does not load it.

One file holds one command, or one group of commands such as `topic`. `application.py` lists them.
A command is a function, usually asynchronous, whose parameters are its arguments, whose docstring
is its help, and whose last parameter is `common: Common`:

- `common.connect()` opens the broker that the options, the environment or a context name;
- `common.output` writes results: a table or text for people, the documented envelope with `--json`;
- an `AnymqError` or a `CommandError` that it raises becomes one line and an exit code, see
  `failures.py`; it returns None, or an exit code.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]

_EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, by default the process's, and return its exit code.

    0 is success, 1 a failed operation, 2 wrong usage or configuration, 130 Ctrl-C, 141 a standard
    output that its reader closed. A command may define others; its help says so.
    """
    try:
        from .application import run

        return run(arguments)
    except KeyboardInterrupt:  # before or after the command, which has its own answer to it
        return _EXIT_INTERRUPTED

"""`tether.py PARENT COMMAND...` becomes COMMAND, bound to die with PARENT: the only place that asks the kernel so.

It runs as a script before the command takes over its process, with the standard library alone, because code between
fork and exec in the parent (`preexec_fn`) may deadlock where threads run. Linux only: `prctl(2)`, PR_SET_PDEATHSIG.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Bind this process to its parent, then become the command; return only on failure."""
    parent, command = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.stderr.write(f"cannot be bound to the parent process: {os.strerror(ctypes.get_errno())}\n")
        return 126
    # The parent may have died before the call above: then nobody would send the signal.
    if os.getppid() != parent:
        return 125
    try:
        os.execve(command[0], command, os.environ)  # noqa: S606 - no shell is meant
    except OSError as error:
        sys.stderr.write(f"`{command[0]}` cannot be run: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

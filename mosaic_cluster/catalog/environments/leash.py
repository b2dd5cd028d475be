"""Runs a command that dies with whoever started it, ``kill -9`` included: ``python leash.py PARENT COMMAND ...``.

Standard library only, and run as a file: it must start fast, and in no environment of ours.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("whoever started this is gone")
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.stderr.write(f"cannot start {sys.argv[2]}: {error.strerror}\n")
        sys.exit(127)

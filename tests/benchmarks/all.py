"""Runs every benchmark of this folder, one after the other; arguments are passed on (``--json``).

Those of telemetry are summed up at the end, beside what is aimed at.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from telemetry_summary import SOURCES, summary


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as kept:
        for path in sorted(Path(__file__).parent.glob("bench_*.py")):
            print(f"== {path.name}", flush=True)
            more = ["--save", kept] if path.stem.removeprefix("bench_") in SOURCES else []
            command = [sys.executable, str(path), *sys.argv[1:], *more]
            failed += subprocess.run(command, check=False).returncode != 0
            print(flush=True)
        if "--json" not in sys.argv:
            print(summary(Path(kept)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

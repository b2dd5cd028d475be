"""The worker process of the end-to-end measurement: prints events as fast as it can, and says when it did.

``lines`` are rendered beforehand and written many at a time, so that what is measured is not the printing;
``emitter`` makes one call of the contract's emitter for each.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from telemetry_events import SHAPES, line, wait_for_start

LINES_AT_ONCE = 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    config = json.loads(parser.parse_args().config.read_text())
    folder, shape, run_id = Path(os.environ["MOSAIC_RUN_DIR"]), config["shape"], config["run_id"]
    if config["producer"] == "lines":
        lines = [line(shape, number, run_id) for number in range(config["events"])]
        chunks = [b"".join(lines[at : at + LINES_AT_ONCE]) for at in range(0, len(lines), LINES_AT_ONCE)]
        del lines
        wait_for_start(folder)
        began = time.time()
        for chunk in chunks:
            os.write(1, chunk)
    else:
        from mosaic_cluster.worker import TelemetryEmitter

        emitter = TelemetryEmitter(run_id)
        items = [SHAPES[shape](number) for number in range(config["events"])]
        wait_for_start(folder)
        began = time.time()
        if shape == "step":
            for item in items:
                emitter.step(**item)
        else:
            for item in items:
                emitter.heartbeat(item)
    ended = time.time()
    (folder / "times.json").write_text(json.dumps({"began": began, "ended": ended}))


if __name__ == "__main__":
    main()

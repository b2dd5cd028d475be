"""A hub in a process of its own, as the tests of fencing and memory need it: JSON lines in, JSON lines out.

``python hub_process.py TELEMETRY_FOLDER MEMORY``; ends with exit code 3 when it is fenced.
"""

from __future__ import annotations

import json
import os
import sys

from mosaic_cluster.runtime.hub_service import HubService
from mosaic_cluster.storage import Storage
from mosaic_cluster.telemetry import Batch, parse

FENCED = 3


def rss() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm") as stat:
        return int(stat.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    folder, memory = sys.argv[1], int(sys.argv[2])
    service = HubService(Storage.open(folder), on_fenced=lambda: os._exit(FENCED), memory=memory)
    print(json.dumps({"ready": os.getpid(), "rss": rss()}), flush=True)
    for text in sys.stdin:
        order = json.loads(text)
        if order["do"] == "append":
            lines, offset = [], order["first"]
            for line in order["lines"]:
                lines.append((offset, line.encode()))
                offset += len(line.encode()) + 1
            parsed = parse(lines, order["run_id"], 1)
            batch = Batch(order["run_id"], 1, order["first"], offset, parsed.tables, parsed.last_step, parsed.last_ts)
            ack = service.append(batch)
            answer = {"accepted": ack.accepted, "committed": ack.committed, "rss": rss(), "last": offset}
        elif order["do"] == "flush":
            service.flush(order["run_id"], 1, order["upto"])
            answer = {}
        elif order["do"] == "watermark":
            ack = service.watermark(order["run_id"], 1)
            answer = {"accepted": ack.accepted, "committed": ack.committed}
        elif order["do"] == "close":
            service.close()
            answer = service.stats()
        else:
            answer = service.stats()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

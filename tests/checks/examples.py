"""Every example spec loads, names an installed worker, and gives it a config that it accepts."""

from __future__ import annotations

import sys
from pathlib import Path

from mosaic_cluster.catalog import Catalog
from mosaic_cluster.experiments.launching import prepare
from mosaic_cluster.specs import read_document
from mosaic_cluster.worker.errors import MosaicError

if __name__ == "__main__":
    failed = 0
    catalog = Catalog()
    for example in sorted((Path(__file__).resolve().parents[2] / "docs" / "examples").glob("*.yaml")):
        try:
            prepare(read_document(example), catalog, heading=str(example))
        except MosaicError as error:
            failed += 1
            print(error)
        else:
            print(f"examples: {example.name} is good")
    sys.exit(bool(failed))

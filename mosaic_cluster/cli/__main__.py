"""``python -m mosaic_cluster.cli``."""

from __future__ import annotations

from mosaic_cluster.cli import main

main()

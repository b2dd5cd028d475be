"""The composition root and Python API: wires the rooms together."""

from __future__ import annotations

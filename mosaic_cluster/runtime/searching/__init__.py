"""Where configurations come from, and which go on: the protocols, and Ray Tune behind them."""

from __future__ import annotations

"""The kinds of specs there are. A new kind is one file and its name in ``Spec``."""

from __future__ import annotations

from typing import TypeAlias, get_args

from pydantic import BaseModel

from mosaic_cluster.specs.run import RunSpec
from mosaic_cluster.specs.sweep import SweepSpec

Spec: TypeAlias = RunSpec | SweepSpec

KINDS: dict[str, type[BaseModel]] = {model.model_fields["kind"].default: model for model in get_args(Spec)}

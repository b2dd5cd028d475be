"""The kinds of specs there are. A new kind is one file and its name in ``Spec``."""

from __future__ import annotations

from typing import TypeAlias, get_args

from mosaic_cluster.specs.run import RunSpec

Spec: TypeAlias = RunSpec

_MODELS: tuple[type[RunSpec], ...] = get_args(Spec) or (Spec,)
KINDS: dict[str, type[RunSpec]] = {model.model_fields["kind"].default: model for model in _MODELS}

"""What every part of a spec has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a spec: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def document_of(section: BaseModel) -> dict[str, Any]:
    """A section in its canonical form: what is not set left out."""
    document: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            document[name] = document_of(value)
        elif value is not None:
            document[name] = value
    return document

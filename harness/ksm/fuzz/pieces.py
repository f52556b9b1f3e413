# SPDX-License-Identifier: MIT
"""Cutting a piece out of a mapping: what is left of it, and what was cut out, are mappings of their own."""

from __future__ import annotations

from harness.ksm.oracle import AreaModel
from harness.ksm.processes import Area
from harness.ksm.protocol import PAGE_BYTES


def piece(model: AreaModel, pages: range) -> AreaModel:
    """Copy some pages of a model, which are where they were."""
    result = AreaModel.untouched(model.address + pages.start * PAGE_BYTES, len(pages))
    for name in ("kinds", "keys", "frames", "mergeable", "merged", "inherited"):
        getattr(result, name)[:] = getattr(model, name)[pages.start : pages.stop]
    result.patches = {page - pages.start: dict(patch) for page, patch in model.patches.items() if page in pages}
    return result


def cut_out(area: Area, pages: range) -> AreaModel:
    """Take pages out of an area: what is left before and behind takes its place. Return the model of what was cut."""
    areas = area.process.areas
    rest = [part for part in (range(pages.start), range(pages.stop, area.pages)) if part]
    at = areas.index(area)
    areas[at : at + 1] = [Area(area.process, piece(area.model, part)) for part in rest]
    return piece(area.model, pages)

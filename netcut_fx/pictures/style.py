"""Style sheets that go into a picture of its own."""

from __future__ import annotations

from importlib import resources


def style_sheet(*names: str) -> str:
    """Text of the files `names` of ``netcut_fx/templates``, one after the other."""
    folder = resources.files("netcut_fx") / "templates"
    return "".join((folder / name).read_text(encoding="utf-8") for name in names)

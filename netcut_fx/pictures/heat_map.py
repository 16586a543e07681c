"""A table of shares as a picture: the darker a field, the more of it."""

from __future__ import annotations

from collections.abc import Sequence

from netcut_fx.pictures.svg import Element, drawing, text_width

_FIELD, _HEIGHT, _SIZE = 64.0, 26.0, 11.5


def heat_map(rows: Sequence[str], columns: Sequence[str], shares: Sequence[Sequence[float]], label: str) -> Element:
    """Draw `shares`, each from 0 to 1, with its value in percent in each field.

    Parameters
    ----------
    rows, columns : sequence of str
        Names; those of columns are written above them, slanted.
    shares : sequence of sequences of float
        One for each row.
    label : str
        Spoken name of the picture.
    """
    left = 12 + max(text_width(name, _SIZE, mono=True) for name in rows)
    slant = 0.71 * max(text_width(name, _SIZE, mono=True) for name in columns)
    top = 16 + slant
    picture = drawing(left + _FIELD * len(columns) + slant, top + _HEIGHT * len(rows) + 4, label, "heat-map")
    for number, name in enumerate(columns):
        x, y = left + _FIELD * (number + 0.5), top - 6
        picture.add("text", name, x=x, y=y, class_="row-name", transform=f"rotate(-45 {x:.2f} {y:.2f})")
    for line, (name, values) in enumerate(zip(rows, shares, strict=True)):
        y = top + _HEIGHT * line
        picture.add("text", name, x=left - 8, y=y + 17, class_="row-name end")
        for number, value in enumerate(values):
            group = picture.add("g").tooltip(f"{name}, {columns[number]}: {100 * value:.1f} %")
            x, width, height = left + _FIELD * number, _FIELD - 2, _HEIGHT - 2
            group.add("rect", class_="field", fill_opacity=value, x=x, y=y, width=width, height=height, rx=4)
            group.add("text", f"{100 * value:.0f}", x=x + width / 2, y=y + 16, class_="tick middle")
    return picture

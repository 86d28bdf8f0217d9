"""Tables that stand between markers on a page, and are made anew."""

from __future__ import annotations


def filled(text: str, begin: str, end: str, table: str) -> str:
    """Return `text` with `table` between the lines `begin` and `end`; unchanged without `begin`.

    Raises `ValueError` if what began does not end: what follows must not be taken for the table.
    """
    before, found, rest = text.partition(f"{begin}\n")
    if not found:
        return text
    _, ended, after = rest.partition(end)
    if not ended:
        raise ValueError(f"{begin} has no {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"

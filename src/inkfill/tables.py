"""Tables as aligned Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Columns = Mapping[str, tuple[str, str]]  # key in a row: heading, format; "{}" is left-aligned text


def markdown(headings: Sequence[str], lines: Sequence[Sequence[object]], left: int = 1) -> str:
    """A table of cells, the first ``left`` columns aligned left, the others right."""
    cells = [[str(cell) for cell in line] for line in (headings, *lines)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headings))]

    def row(line: Sequence[str]) -> str:
        padded = (c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 1) + ("-" if i < left else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([row(cells[0]), rule, *(row(line) for line in cells[1:])])


def cells(rows: Sequence[Mapping[str, Any]], columns: Columns) -> tuple[list[str], list[list[str]], int]:
    """Format rows of values: headings, lines of cells, and the number of text columns.

    Missing values (None, NaN) give empty cells; a column without values is left out.
    """

    def measured(value: Any) -> bool:
        return value is not None and not (isinstance(value, float) and np.isnan(value))

    shown = {key: column for key, column in columns.items() if any(measured(row.get(key)) for row in rows)}
    lines = [
        [form.format(row[key]) if measured(row.get(key)) else "" for key, (_, form) in shown.items()] for row in rows
    ]
    return [heading for heading, _ in shown.values()], lines, sum(form == "{}" for _, form in shown.values())


def table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> str:
    """Rows of values as a Markdown table."""
    return markdown(*cells(rows, columns))

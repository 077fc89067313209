"""Tables as text."""

from inkfill.tables import markdown, table


def test_tables_are_markdown_without_columns_that_were_not_measured():
    columns = {"name": ("name", "{}"), "value": ("value", "{:.2f}"), "other": ("other", "{:.1f}")}
    rows = [{"name": "a", "value": 1.234}, {"name": "long", "value": float("nan"), "other": None}]
    assert table(rows, columns).splitlines() == [
        "| name | value |", "|------|------:|", "| a    |  1.23 |", "| long |       |",
    ]  # fmt: skip
    assert markdown(["a", "b"], [[1, 2]], left=2).splitlines() == ["| a | b |", "|---|---|", "| 1 | 2 |"]

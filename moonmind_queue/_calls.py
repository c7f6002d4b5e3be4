"""How the client calls: SQL functions by name, views by the columns of a record."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

import psycopg
from psycopg.rows import class_row, dict_row, tuple_row
from psycopg.sql import SQL, Composable, Identifier, Placeholder

from moonmind_queue import errors

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = "moonmind_queue"

Row = TypeVar("Row", bound="DataclassInstance")


class Calls:
    """Calls over one connection; every error is a :class:`~moonmind_queue.errors.QueueError`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def select(self, query: LiteralString, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of a query on the views as dictionaries; see ``docs/sql.md``."""
        with self._cursor() as cursor:
            cursor.row_factory = dict_row
            return cursor.execute(query, values).fetchall()

    def _rows(self, row: type[Row], function: str, **arguments: Any) -> list[Row]:
        """Call a SQL function and return the columns that ``row`` has fields for.

        Columns and arguments are named, so that an old client works on a newer schema: a column
        or a defaulted parameter that was added goes unnoticed.
        """
        with self._cursor() as cursor:
            cursor.row_factory = class_row(row)
            cursor.execute(_call(row, function, tuple(arguments)), arguments)
            return cursor.fetchall()

    def _value(self, function: str, **arguments: Any) -> Any:
        """Call a SQL function and return the one value that it gives."""
        with self._cursor() as cursor:
            cursor.execute(_call(None, function, tuple(arguments)), arguments)
            row = cursor.fetchone()
            return row[0] if row else None

    def _view(self, row: type[Row], view: str, clause: Composable, **values: Any) -> list[Row]:
        with self._cursor() as cursor:
            cursor.row_factory = class_row(row)
            query = SQL("select {} from {} {}").format(
                _columns(row), Identifier(SCHEMA, view), clause
            )
            cursor.execute(query, values)
            return cursor.fetchall()

    @contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[Any]]:
        try:
            with self.connection.cursor(row_factory=tuple_row) as cursor:
                yield cursor
        except psycopg.Error as error:
            raise errors.from_postgres(error) from error


@cache  # composing a query takes as long as running a short one
def _call(row: type[Any] | None, function: str, names: tuple[str, ...]) -> bytes:
    """Return the query that calls a SQL function for the columns of ``row``, or for all."""
    named = (SQL("{} => {}").format(Identifier(f"p_{name}"), Placeholder(name)) for name in names)
    return (
        SQL("select {} from {}({})")
        .format(
            _columns(row) if row else SQL("*"), Identifier(SCHEMA, function), SQL(", ").join(named)
        )
        .as_bytes()
    )


def _columns(row: type[Any]) -> Composable:
    return SQL(", ").join(Identifier(field.name) for field in fields(row))

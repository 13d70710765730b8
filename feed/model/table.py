"""A table of somebody else's, as far as feed must know it before it reads postings from it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, in the order in which the table has them."""

    name: str
    """As it is, not quoted."""
    quoted: str
    """As SQL takes it: quoted where it must be."""
    type: str
    """As Postgres writes it: `text`, `character varying(200)`, `timestamp with time zone`, `text[]`, `app.status`."""
    category: str
    """The letter of `pg_type.typcategory`, of a domain's base type: S text, N number, D time, B boolean, A array, E enum,
    U others (uuid, json)."""
    not_null: bool = False
    labels: tuple[str, ...] = ()
    """The values of an enum, in its order."""


@dataclass(frozen=True, slots=True)
class Key:
    """Columns that name a row: NOT NULL, and under a unique index without a condition or an expression."""

    columns: tuple[str, ...]
    primary: bool


@dataclass(frozen=True, slots=True)
class TableShape:
    """What there is to know of a table: its columns, its keys, the tables that hold its rows, and feed's rights."""

    oid: int
    name: str
    """With its schema, quoted where it must be: `public.vacancies`."""
    columns: tuple[Column, ...]
    keys: tuple[Key, ...]
    """The primary key first, then the shortest."""
    partitioned: bool = False
    leaves: tuple[str, ...] = ()
    """The partitions of all levels that hold rows, and the children that inherit from the table; named as `name` is. The
    table itself is not among them."""
    rows: int = 0
    """About how many rows it has, by the planner's statistics; 0 where they were never made."""
    role: str = ""
    """The role that looked, quoted where it must be."""
    owner: str = ""
    """The role that owns the table, quoted where it must be."""
    owned: bool = True
    """Whether the role that looked owns the table, or is a member of the role that does: only then may it drop its own
    triggers again."""
    row_security: str | None = None
    """Why row security may hide rows from the role; None where it hides none."""
    schema: str = ""
    """The schema of the table, quoted where it must be."""
    grants: tuple[str, ...] = ()
    """The GRANTs that the role lacks, for an administrator; empty where it has all rights that it needs."""

    def column(self, name: str) -> Column | None:
        """Return the column of that name, None where there is none."""
        return next((column for column in self.columns if column.name == name), None)

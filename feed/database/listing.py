"""The statements that lists are read with. Each is complete in itself: it reads the postings, the log's place and how far
the search index has come, all in one snapshot.

The index (0007_search.sql) follows the log. What changed behind its position is looked at exactly, in `job`; the rest is
found through the index, and every posting that it finds is checked by the conditions of `feed.database.conditions` too.

No one plan suits every filter, and the planner's estimates of words are far off. So the statements fix the plan (a query of
lexemes comes out of a sub-select, so that the planner knows nothing of it), each has a bound, and `feed.database.lists`
chooses: `walk` looks at the newest postings, one after the other, and finds at once what is frequent; `gather` asks for the
lexemes, and finds what is rare.
"""

from collections.abc import Sequence
from typing import Any

from feed.database.conditions import conditions
from feed.database.lexemes import box_of, query_of, quick_query_of
from feed.model.filter import EARTH_RADIUS, Filter, Near
from feed.model.page import Page
from feed.model.posting import FIELDS

BEHIND = 2_000
"""Changes behind the index's position that a list looks at; with more, the index is not used."""

_INDEXED = "x.id, x.posted_at, x.pay, x.latitude, x.longitude, x.lexemes"
COLUMNS = ", ".join(f"j.{name}" for name in FIELDS)

# Of the inbox, those that the last advance() did not see; see the comment on `rescue` and `ident` in 0003_log.sql.
_CHANGED = f"""
s AS MATERIALIZED (
  SELECT s.epoch, s.head, i.position, i.filled IS NULL AS whole, i.opened, i.closed,
         CASE WHEN s.rescue OR s.ident <> ident() THEN '0'::xid8 ELSE pg_snapshot_xmin(s.snap) END AS since
    FROM state s CROSS JOIN search_state i),
c AS MATERIALIZED (
  (SELECT l.job[1]::bigint AS id FROM log l
    WHERE l.position > (SELECT s.position FROM s) AND l.kind IN ('posted', 'updated', 'closed')
    ORDER BY l.position LIMIT {BEHIND + 1})
  UNION ALL
  (SELECT i.job[1]::bigint FROM inbox i
    WHERE i.xid >= (SELECT s.since FROM s) AND i.kind IN ('posted', 'updated', 'closed')
    ORDER BY i.xid LIMIT {BEHIND + 1})),
u AS MATERIALIZED (SELECT (SELECT s.whole FROM s) AND (SELECT count(*) FROM c) <= {BEHIND} AS usable)
"""


class Statement:
    """A statement over the postings that match `wanted`, on the page `page`; `arguments` are those of its `sql`."""

    def __init__(self, wanted: Filter, page: Page) -> None:
        self.arguments: list[Any] = []
        self.sql = ""
        self._wanted = wanted
        self._page = page
        self._rows = page.limit + 1
        self._mark = page.before or page.after
        self._direction, self._operator = ("ASC", ">") if page.before is not None else ("DESC", "<")

    def scan(self) -> "Statement":
        """Read the page from `job` alone, without the index."""
        self.sql = (
            "WITH s AS (SELECT s.epoch, s.head FROM state s), "
            f"p AS (SELECT j.id, j.posted_at FROM job j WHERE {self._matching()} AND {self._beyond('j')} "
            f"ORDER BY {self._order('j')} LIMIT {self._rows}) "
            f"{self._shown('s.epoch, s.head', 's')}"
        )
        return self

    def walk(self, most: int) -> "Statement":
        """Look at the `most` first postings of the index."""
        self.sql = self._indexed(
            f"w AS MATERIALIZED (SELECT x.id, x.posted_at FROM {self._first(most)} x {self._checked()} "
            f"WHERE (SELECT u.usable FROM u) AND {self._plausible(cells=False)} AND x.id NOT IN (SELECT c.id FROM c) "
            f"ORDER BY {self._order('x')} LIMIT {self._rows})",
            "(SELECT count(*) FROM w)",
        )
        return self

    def gather_some(self, most: int) -> "Statement":
        """Look at all postings with the lexemes that the index is quick to find, or at none if they are `most` or more."""
        found = " UNION ALL ".join(
            f"(SELECT {_INDEXED} FROM search x WHERE {state} AND {self._having(quick_query_of(self._wanted))} "
            f"AND {self._beyond('x')})"
            for state in self._states()
        )
        gathered = f"SELECT x.* FROM ({found}) x WHERE (SELECT u.usable FROM u) LIMIT {most}"
        few = f"(SELECT count(*) FROM g) < {most} AND {self._plausible(cells=False)}"
        self.sql = self._gathered(gathered, few)
        return self

    def gather(self) -> "Statement":
        """Look at all postings with the lexemes."""
        found = " UNION ALL ".join(
            f"(SELECT x.id, x.posted_at FROM search x WHERE {state} AND {self._plausible()} AND {self._beyond('x')})"
            for state in self._states()
        )
        self.sql = self._gathered(f"SELECT x.* FROM ({found}) x WHERE (SELECT u.usable FROM u)", "true")
        return self

    def count_first(self, most: int) -> "Statement":
        """Count what matches among the `most` first postings, and among those behind the index's position."""
        self.sql = self._counting(
            f"SELECT count(*) FROM {self._first(most)} x WHERE {self._plausible(cells=False)} "
            "AND x.id NOT IN (SELECT c.id FROM c)"
        )
        return self

    def count_gathered(self, most: int) -> "Statement":
        """Count all that match, up to `most`."""
        found = " UNION ALL ".join(
            f"(SELECT 1 FROM search x WHERE {state} AND {self._plausible()} AND x.id NOT IN (SELECT c.id FROM c))"
            for state in self._states()
        )
        self.sql = self._counting(f"SELECT count(*) FROM (SELECT 1 FROM ({found}) x LIMIT {most}) x")
        return self

    def _gathered(self, gathered: str, condition: str) -> str:
        return self._indexed(
            f"g AS MATERIALIZED ({gathered}), "
            "w AS MATERIALIZED (SELECT x.id, x.posted_at FROM ("
            f"SELECT x.id, x.posted_at FROM g x WHERE {condition} AND x.id NOT IN (SELECT c.id FROM c) "
            f"ORDER BY {self._order('x')}) x {self._checked()} ORDER BY {self._order('x')} LIMIT {self._rows})",
            "(SELECT count(*) FROM g)",
        )

    def _indexed(self, found: str, size: str) -> str:
        """Unite what the index finds, as `w`, with what changed behind its position."""
        fresh = (
            f"f AS MATERIALIZED (SELECT j.id, j.posted_at FROM job j WHERE j.id = ANY (ARRAY(SELECT c.id FROM c)) "
            f"AND (SELECT u.usable FROM u) AND {self._matching()} AND {self._beyond('j')})"
        )
        both = (
            "p AS (SELECT a.id, a.posted_at FROM ("
            "SELECT f.id, f.posted_at FROM f UNION ALL SELECT w.id, w.posted_at FROM w) a "
            f"ORDER BY {self._order('a')} LIMIT {self._rows})"
        )
        shown = f"s.epoch, s.head, s.opened, s.closed, u.usable, {size} AS size"
        return f"WITH {_CHANGED}, {fresh}, {found}, {both} {self._shown(shown, 's CROSS JOIN u')}"

    def _shown(self, columns: str, tables: str) -> str:
        return (
            f"SELECT {columns}, r.id, r.micros, r.job FROM {tables} LEFT JOIN ("
            "SELECT p.id, p.posted_at, trunc(extract(epoch FROM p.posted_at) * 1000000)::text AS micros, "
            f"(SELECT row_to_json(q)::text FROM (SELECT {COLUMNS}, '/v1/jobs/' || j.id AS href) q) AS job "
            f"FROM p JOIN job j ON j.id = p.id) r ON true ORDER BY {self._order('r')}"
        )

    def _counting(self, count: str) -> str:
        """`size` is what `count` counts, `fresh` what matches behind the index's position, `stale` the others there."""
        stale = " OR ".join(self._states())
        return (
            f"WITH {_CHANGED} SELECT s.opened, s.closed, u.usable, "
            f"CASE WHEN u.usable THEN ({count}) END AS size, "
            "(SELECT count(*) FROM job j WHERE u.usable AND j.id = ANY (ARRAY(SELECT c.id FROM c)) "
            f"AND {self._matching()}) AS fresh, "
            "(SELECT count(*) FROM search x WHERE u.usable AND x.id = ANY (ARRAY(SELECT c.id FROM c)) "
            f"AND ({stale})) AS stale "
            "FROM s CROSS JOIN u"
        )

    def _states(self) -> Sequence[str]:
        wanted = self._page.open
        return [state for state, one in (("x.open", True), ("NOT x.open", False)) if wanted in (one, None)]

    def _first(self, most: int) -> str:
        """Return a sub-select of the first rows of the index in the order of the page, behind its mark."""
        of_each = [
            f"(SELECT {_INDEXED} FROM search x WHERE {state} AND {self._beyond('x')} "
            f"ORDER BY {self._order('x')} LIMIT {most})"
            for state in self._states()
        ]
        if len(of_each) == 1:
            return of_each[0]
        return f"(SELECT {_INDEXED} FROM ({' UNION ALL '.join(of_each)}) x ORDER BY {self._order('x')} LIMIT {most})"

    def _checked(self) -> str:
        """Return a join that leaves out what does not match exactly; rows are asked for one by one, in their order."""
        return f"CROSS JOIN LATERAL (SELECT 1 FROM job j WHERE j.id = x.id AND {self._matching()} OFFSET 0) j"

    def _matching(self) -> str:
        """Return the exact conditions on a posting."""
        where, _ = conditions(self._wanted, self.arguments)
        if self._page.open is not None:
            where.append(f"j.closed_at IS {'' if self._page.open else 'NOT '}NULL")
        return " AND ".join(where) or "true"

    def _plausible(self, *, cells: bool = True) -> str:
        """Return the conditions on a row of the index, which every posting meets that matches, and few others."""
        where = [self._having(query_of(self._wanted, cells=cells))]
        wanted: Filter | None = self._wanted
        while wanted is not None:
            if wanted.salary_min is not None:
                where.append(f"x.pay >= {self._bind(wanted.salary_min)}::double precision")
            if wanted.near is not None:
                where.append(self._around(wanted.near))
            wanted = wanted.within
        return " AND ".join(where)

    def _having(self, asked: Sequence[str]) -> str:
        return f"x.lexemes @@ (SELECT {self._bind(' & '.join(asked))}::text::tsquery)" if asked else "true"

    def _around(self, near: Near) -> str:
        south, north, west, east = box_of(near)
        inside = f"x.latitude BETWEEN {self._bind(south)}::float8 AND {self._bind(north)}::float8"
        if east - west < 360 and west >= -180 and east <= 180:
            inside += f" AND x.longitude BETWEEN {self._bind(west)}::float8 AND {self._bind(east)}::float8"
        lat, lon = self._bind(near.latitude), self._bind(near.longitude)
        radius = self._bind(near.radius_km * (1 + 1e-9) + 1e-6)
        # distance_km() of 0004_fold.sql, written out: calling a function for every row costs more than what it computes.
        return (
            f"{inside} AND {2 * EARTH_RADIUS} * asin(least(1.0, sqrt(power(sin(radians(x.latitude - {lat}::float8) / 2), 2) "
            f"+ cos(radians({lat}::float8)) * cos(radians(x.latitude)) "
            f"* power(sin(radians(x.longitude - {lon}::float8) / 2), 2)))) <= {radius}::float8"
        )

    def _order(self, table: str) -> str:
        columns = ("id",) if self._page.sort == "arrived" else ("posted_at", "id")
        return ", ".join(f"{table}.{column} {self._direction}" for column in columns)

    def _beyond(self, table: str) -> str:
        mark = self._mark
        if mark is None:
            return "true"
        if self._page.sort == "arrived":
            return f"{table}.id {self._operator} {self._bind(mark.id)}::bigint"
        days, seconds = f"{self._bind(mark.day)}::integer", f"{self._bind(mark.second)}::float8"
        instant = f"timestamptz 'epoch' + make_interval(days => {days}, secs => {seconds})"
        return f"({table}.posted_at, {table}.id) {self._operator} ({instant}, {self._bind(mark.id)}::bigint)"

    def _bind(self, value: Any) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

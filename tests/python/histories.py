"""Random histories of a table: the statements that make it and change it, in our words and in DuckDB's.

In their texts `@t` is the table, `@old` one of its older versions, `@n` the number of that version.
"""

import dataclasses
import random
import re

from kinds import ID_TESTS, KINDS


@dataclasses.dataclass(frozen=True)
class Step:
    """A statement, or a query whose answer is compared."""

    sql: str
    # The same for DuckDB, in one transaction; that `counted` last of these change as many rows as ours says it did.
    model: tuple[str, ...]
    counted: int = 1
    # Which of the versions that are there by then `@old` is, from the first (0) to the newest (almost 1).
    age: float = 0.0
    query: bool = False


def in_duckdb(sql):
    """What DuckDB spells otherwise."""
    sql = re.sub(r"X'([0-9a-f]*)'", r"from_hex('\1')", sql)
    sql = re.sub(r"ARRAY<(.*?>)>", r"\1[]", sql)
    return re.sub(r"STRUCT<(.*?)>", r"STRUCT(\1)", sql)


class History:
    """The steps that a seed stands for. They do not look at the table, so that any of them can be left out."""

    def __init__(self, seed, length, allowed):
        self.random = random.Random(seed)
        self.allowed = allowed
        self.merging = False
        names = self.random.sample(list(KINDS), self.random.randint(2, 5))
        self.columns = ["id", *sorted(names)]
        candidates = [name for name in names if KINDS[name].partition]
        self.partitions = self.random.sample(candidates, min(len(candidates), self.random.choice((0, 1, 1, 2))))
        self.refusing = self.random.random() < 0.3
        self.defaults = [name for name in names if KINDS[name].default and self.random.random() < 0.5]
        self.long = not self.partitions and self.random.random() < 0.15
        # The model keeps to its columns, and older versions may have fewer.
        self.never = self.random.choice(("ALTER", "RESTORE"))
        self.create = self.creation()
        # Enough rows that most conditions find some.
        first = self.same(f"INSERT INTO @t {self.series()}")
        self.steps = [first, *(self.step() for _ in range(length))]

    def creation(self):
        columns = ["id BIGINT NOT NULL"]
        for name in self.columns[1:]:
            default = f" DEFAULT {KINDS[name].default}" if name in self.defaults else ""
            columns.append(f"{name} {KINDS[name].type}{default}")
        if self.refusing:
            columns.append("CONSTRAINT small CHECK (id < 30)")
        created = f"CREATE TABLE @t ({', '.join(columns)})"
        ours = f"{created} PARTITIONED BY ({', '.join(self.partitions)})" if self.partitions else created
        interval = self.random.choice((None, 2, 5))
        if interval:
            ours += f" TBLPROPERTIES ('delta.checkpointInterval' = '{interval}')"
        return Step(ours, (in_duckdb(created),), counted=0)

    def step(self):
        makers = {
            "INSERT": (4, self.insert),
            "UPDATE": (5, self.update),
            "DELETE": (4, self.delete),
            "MERGE": (5, self.merge),
            "OVERWRITE": (1, self.overwrite),
            "REPLACE WHERE": (2, self.replace_where),
            "TRUNCATE": (0.4, self.truncate),
            "OPTIMIZE": (2, self.optimize),
            "RESTORE": (1.5, self.restore),
            "ALTER": (0.5, self.alter),
            "SELECT": (6, self.query),
        }
        names = [name for name in makers if name in self.allowed and name != self.never]
        [name] = self.random.choices(names, [makers[name][0] for name in names])
        return makers[name][1]()

    def same(self, sql, **more):
        """A step that is written alike in both."""
        return self.of(sql, [sql], **more)

    def of(self, sql, model, **more):
        return Step(sql, tuple(map(in_duckdb, model)), age=self.random.random(), **more)

    # Rows and expressions.

    def value(self, name, null=0.15):
        if name == "id":
            return str(self.random.randint(1, 20))
        if self.random.random() < null:
            return "NULL"
        return self.random.choice(KINDS[name].values)

    def changed(self, name, table):
        """A new value for a column, made of the row's old ones."""
        if name == "id":
            return self.random.choice((f"{table}id", f"{table}id + 1", f"{table}id % 10 + 1"))
        changes = self.templates(KINDS[name].changes)
        if not changes or self.random.random() < 0.3:
            value = self.value(name)
            whole = value != "NULL" and KINDS[name].orders and self.random.random() < 0.3
            return f"coalesce({table}{name}, {value})" if whole else value
        return self.about(self.random.choice(changes), name, table)

    def about(self, template, name, table):
        exact = r"\1" if "DECIMALS BESIDE DOUBLES" in self.allowed else r"CAST(\1 AS DOUBLE)"
        return re.sub(r"EXACT\((.*?)\)", exact, template).replace("COL", f"{table}{name}").replace("ID", f"{table}id")

    def templates(self, templates):
        """Those that may stand here."""
        never = []
        if "TWO IN LISTS" not in self.allowed:
            never.append("COL NOT IN")
        if self.merging and "FIELDS IN MERGE" not in self.allowed:
            never.append("COL[")
        return [template for template in templates if not any(text in template for text in never)]

    def predicate(self, table, subqueries=True, depth=2):
        choice = self.random.random()
        if depth and choice < 0.35:
            word = self.random.choice(("AND", "OR"))
            sides = (self.predicate(table, subqueries, depth - 1) for _ in range(2))
            return "(" + f" {word} ".join(sides) + ")"
        if depth and choice < 0.45:
            return f"NOT ({self.predicate(table, subqueries, depth - 1)})"
        if subqueries and choice < 0.55:
            inner = self.predicate("o.", False, 1)
            source = self.random.choice(("@t", "@old"))
            return self.random.choice(
                (
                    f"{table}id IN (SELECT o.id FROM {source} AS o WHERE {inner})",
                    f"{table}id NOT IN (SELECT o.id + 1 FROM {source} AS o WHERE {inner})",
                    f"EXISTS (SELECT 1 FROM {source} AS o WHERE o.id = {table}id + 1 AND {inner})",
                    f"NOT EXISTS (SELECT 1 FROM {source} AS o WHERE o.id > {table}id AND {inner})",
                    f"{table}id = (SELECT max(o.id) FROM {source} AS o WHERE {inner})",
                )
            )
        if choice < 0.58:
            return self.random.choice(("true", "false", "CAST(NULL AS BOOLEAN)"))
        name = self.random.choice(self.columns)
        if name == "id" or self.random.random() < 0.2:
            return self.about(self.random.choice(ID_TESTS), "id", table)
        tests = (*self.templates(KINDS[name].tests), "COL IS NULL", "COL IS NOT NULL")
        return self.about(self.random.choice(tests), name, table)

    def source(self, unique=False):
        """A query for rows with all columns of the table."""
        return self.random.choice((self.values, self.values, self.series, self.rows))(unique)

    def values(self, unique):
        count = self.random.randint(1, 8)
        ids = self.random.sample(range(1, 25), count) if unique else self.random.choices(range(1, 25), k=count)
        # The first row says the types.
        rows = ([self.value(name, 0.2 * (at > 0)) for name in self.columns[1:]] for at in range(count))
        listed = ", ".join(f"({', '.join([str(key), *row])})" for key, row in zip(ids, rows))
        return f"SELECT * FROM (VALUES {listed}) AS v({', '.join(self.columns)})"

    def series(self, _=False):
        first, many = self.random.randint(1, 20), 2000 if self.long else 12
        columns = ["v AS id"]
        for name in self.columns[1:]:
            columns.append(f"CASE WHEN v % {self.random.randint(2, 5)} > 0 THEN {self.value(name, 0)} END AS {name}")
        return f"SELECT {', '.join(columns)} FROM generate_series({first}, {first + many}) AS g(v)"

    def rows(self, unique):
        """Rows of the table itself, changed."""
        columns = [f"o.id + {self.random.randint(0, 3)} AS id"]
        for name in self.columns[1:]:
            value = self.changed(name, "o.") if self.random.random() < 0.5 else "NULL"
            # NULL alone has no type.
            columns.append(f"o.{name}" if value == "NULL" else f"{value} AS {name}")
        relation = self.random.choice(("@t", "@old"))
        where = self.predicate("o.", subqueries=False)
        if unique:
            where += f" AND o.id IN (SELECT i.id FROM {relation} AS i GROUP BY i.id HAVING count(*) = 1)"
        return f"SELECT {', '.join(columns)} FROM {relation} AS o WHERE {where}"

    def named(self):
        """Columns of an INSERT, some of them left to their defaults."""
        others = [name for name in self.columns[1:] if self.random.random() < 0.7]
        self.random.shuffle(others)
        return ["id", *others]

    # Statements.

    def insert(self):
        form = self.random.choice(("@t", "@t", "@t (NAMES)", "@t (NAMES)", "@t BY NAME"))
        if form == "@t":
            return self.same(f"INSERT INTO @t {self.source()}")
        names = ", ".join(self.named())
        return self.same(f"INSERT INTO {form.replace('NAMES', names)} SELECT {names} FROM ({self.source()}) AS i")

    def alter(self):
        others = [name for name in KINDS if name not in self.columns]
        name = self.random.choice(others)
        sql = f"ALTER TABLE @t ADD COLUMN {name} {KINDS[name].type}"
        self.columns.append(name)
        return self.of(sql, [sql], counted=0)

    def came(self, query):
        """Rows in a place of their own, for `query` may read the table that is emptied before they go there."""
        return ["CREATE OR REPLACE TEMP TABLE came AS SELECT * FROM @t WHERE false", f"INSERT INTO came {query}"]

    def overwrite(self):
        query = self.source()
        came = self.came(query)
        if self.partitions and self.random.random() < 0.6:
            alike = " AND ".join(f"came.{name} IS NOT DISTINCT FROM x.{name}" for name in self.partitions)
            sql = f"INSERT OVERWRITE PARTITIONS OF @t {query}"
            gone = f"DELETE FROM @t AS x WHERE EXISTS (SELECT 1 FROM came WHERE {alike})"
        else:
            sql, gone = f"INSERT OVERWRITE @t {query}", "DELETE FROM @t"
        return self.of(sql, [*came, gone, "INSERT INTO @t SELECT * FROM came"])

    def replace_where(self):
        where = self.predicate("", subqueries=False)
        query = self.source()
        if self.random.random() < 0.85:
            query = f"SELECT * FROM ({query}) AS came WHERE {where}"
        strangers = self.none(f"SELECT 1 FROM came WHERE ({where}) IS NOT TRUE", "a row does not fit")
        gone = f"DELETE FROM @t WHERE {where}"
        model = [*self.came(query), strangers, gone, "INSERT INTO @t SELECT * FROM came"]
        return self.of(f"INSERT INTO @t REPLACE WHERE {where} {query}", model, counted=2)

    def truncate(self):
        return self.of("TRUNCATE TABLE @t", ["DELETE FROM @t"])

    def delete(self):
        if self.random.random() < 0.25:
            on = self.join()
            return self.same(f"DELETE FROM @t AS x USING ({self.source()}) AS s WHERE {on}")
        return self.same(f"DELETE FROM @t AS x WHERE {self.predicate('x.')}")

    def update(self):
        if self.random.random() < 0.35:
            source, on = self.source(unique=self.random.random() < 0.8), self.join()
            if self.random.random() < 0.4:
                on += f" AND {self.predicate('x.', subqueries=False, depth=1)}"
            sql = f"UPDATE @t AS x SET {self.assignments(('x.', 's.'))} FROM ({source}) AS s WHERE {on}"
            return self.of(sql, [self.once(source, on), sql])
        where = "" if self.random.random() < 0.1 else f" WHERE {self.predicate('x.')}"
        return self.same(f"UPDATE @t AS x SET {self.assignments(('x.',))}{where}")

    def merge(self):
        source, on = self.source(unique=self.random.random() < 0.8), self.join()
        ours, theirs, acts = [], [], []
        self.merging = True
        for _ in range(2):
            condition = f" AND {self.side(('x.', 's.'))}" if self.random.random() < 0.7 else ""
            if self.random.random() < 0.7:
                action, model = self.merge_update()
            else:
                action = model = "DELETE"
            ours.append(f"WHEN MATCHED{condition} THEN {action}")
            theirs.append(f"WHEN MATCHED{condition} THEN {model}")
            acts.append(condition.removeprefix(" AND ") or "true")
            if not condition or self.random.random() < 0.5:
                break
        if self.random.random() < 0.15:
            ours, theirs, acts = [], [], []
        if not ours or self.random.random() < 0.7:
            condition = f" AND {self.side(('s.',))}" if self.random.random() < 0.4 else ""
            action, model = self.merge_insert()
            ours.append(f"WHEN NOT MATCHED{condition} THEN {action}")
            theirs.append(f"WHEN NOT MATCHED{condition} THEN {model}")
        if self.random.random() < 0.35:
            condition = f" AND {self.side(('x.',))}" if self.random.random() < 0.8 else ""
            action = "DELETE" if self.random.random() < 0.4 else f"UPDATE SET {self.assignments(('x.',))}"
            ours.append(f"WHEN NOT MATCHED BY SOURCE{condition} THEN {action}")
            theirs.append(ours[-1])
        self.merging = False
        head = f"MERGE INTO @t AS x USING ({source}) AS s ON {on} "
        sql, model = head + " ".join(ours), [head + " ".join(theirs)]
        if ours[0] == "WHEN MATCHED THEN DELETE":
            # Rows of the source may agree on it. DuckDB then counts each of them.
            return self.of(sql, model, counted=0)
        if acts:
            model.insert(0, self.once(source, f"({on}) AND ({' OR '.join(acts)})"))
        return self.of(sql, model)

    def merge_update(self):
        if self.random.random() < 0.3:
            return "UPDATE SET *", "UPDATE SET " + ", ".join(f"{name} = s.{name}" for name in self.columns)
        text = f"UPDATE SET {self.assignments(('x.', 's.'))}"
        return text, text

    def merge_insert(self):
        if self.random.random() < 0.3:
            names = ", ".join(self.columns)
            return "INSERT *", f"INSERT ({names}) VALUES ({', '.join(f's.{name}' for name in self.columns)})"
        names = self.named()
        values = ["s.id", *(self.changed(name, "s.") for name in names[1:])]
        text = f"INSERT ({', '.join(names)}) VALUES ({', '.join(values)})"
        return text, text

    def join(self):
        others = [name for name in self.columns[1:] if KINDS[name].orders]
        choice = self.random.random()
        if others and choice < 0.15:
            name = self.random.choice(others)
            return f"x.{name} = s.{name}"
        if others and choice < 0.3:
            name = self.random.choice(others)
            alike = f"x.{name} IS NOT DISTINCT FROM s.{name}"
            return f"{alike if 'DISTINCT BEFORE AND' in self.allowed else f'({alike})'} AND x.id = s.id"
        if choice < 0.35:
            return "x.id + 1 = s.id"
        return "x.id = s.id"

    def side(self, tables):
        return self.predicate(self.random.choice(tables), subqueries=False, depth=1)

    def assignments(self, tables):
        names = self.random.sample(self.columns, self.random.randint(1, min(3, len(self.columns))))
        return ", ".join(f"{name} = {self.assigned(name, self.random.choice(tables))}" for name in names)

    def assigned(self, name, table):
        choice = self.random.random()
        if name in self.defaults and choice < 0.2:
            return "DEFAULT"
        if not self.merging and table == "x." and KINDS.get(name, KINDS["n"]).orders and choice > 0.9:
            relation = self.random.choice(("@t", "@old"))
            return f"coalesce((SELECT max(o.{name}) FROM {relation} AS o WHERE o.id = x.id), x.{name})"
        return self.changed(name, table)

    def once(self, source, condition):
        """What ours refuses and DuckDB leaves to chance: several rows of the source that change one row."""
        pairs = f"SELECT x.rowid FROM @t AS x JOIN ({source}) AS s ON true WHERE {condition}"
        return self.none(f"{pairs} GROUP BY x.rowid HAVING count(*) > 1", "several rows of the source change one row")

    @staticmethod
    def none(query, reason):
        """Makes DuckDB refuse a statement when a query finds rows."""
        return f"SELECT CASE WHEN count(*) > 0 THEN error('{reason}') END FROM ({query})"

    def optimize(self):
        sql = "OPTIMIZE @t"
        if self.partitions and self.random.random() < 0.3:
            name = self.random.choice(self.partitions)
            # Files are chosen by what all their rows have in common.
            tests = [test for test in self.templates(KINDS[name].tests) if "ID" not in test]
            sql += f" WHERE {self.about(self.random.choice((*tests, 'COL IS NULL')), name, '')}"
        if self.random.random() < 0.3:
            others = (name for name in self.columns[1:] if KINDS[name].orders and name not in self.partitions)
            names = self.random.sample(["id", *others], 1)
            sql += f" ZORDER BY ({', '.join(names)})"
        return self.of(sql, [], counted=0)

    def restore(self):
        model = ["DELETE FROM @t", "INSERT INTO @t SELECT * FROM @old"]
        return self.of("RESTORE TABLE @t TO VERSION AS OF @n", model, counted=0)

    def query(self):
        relation = self.random.choice(("@t", "@old"))
        name = self.random.choice(["id", *(name for name in self.columns[1:] if KINDS[name].orders)])
        bounds = f"count(x.{name}) AS c, min(x.{name}) AS low, max(x.{name}) AS high"
        what = self.random.choice(("*", "x.id", "count(*) AS c", bounds))
        # Without a condition, statistics may answer.
        where = "true" if "count" in what and self.random.random() < 0.5 else self.predicate("x.")
        sql = f"SELECT {what} FROM {relation} AS x WHERE {where}"
        if what == "x.id" and self.random.random() < 0.5:
            order = self.random.choice((" ORDER BY x.id", " ORDER BY x.id DESC", ""))
            some = f"{sql}{order} LIMIT {self.random.randint(0, 12)}"
            sql = some if order else f"SELECT count(*) AS c FROM ({some}) AS y"
        return self.same(sql, query=True)

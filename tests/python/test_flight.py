"""Real clients against `selvedge serve`: the ADBC Flight SQL driver, pandas, polars, plain pyarrow."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
from decimal import Decimal

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.flight as flight
import pytest

LISTENING = re.compile(r"listening on (grpc://127\.0\.0\.1:\d+)")


@contextlib.contextmanager
def serving(program, lake):
    process = subprocess.Popen(
        [program, "serve", str(lake), "--flight", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    log = []
    try:
        for line in process.stderr:
            log.append(line)
            if found := LISTENING.search(line):
                break
        else:
            raise RuntimeError(f"the server did not start: {''.join(log)}")
        # A pipe nobody reads would block the server once it is full.
        threading.Thread(target=lambda: log.extend(process.stderr), daemon=True).start()
        yield found.group(1), process
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def server(program, lake):
    with serving(program, lake) as running:
        yield running


@pytest.fixture
def uri(server):
    return server[0]


@pytest.fixture
def own_server(program, tmp_path):
    """A server on which nothing runs but what the test runs, so that its work can be measured."""
    with serving(program, tmp_path) as running:
        yield running


@pytest.fixture
def connection(uri):
    with flight_sql.connect(uri, autocommit=True) as connection:
        yield connection


@pytest.fixture
def cursor(connection):
    with connection.cursor() as cursor:
        yield cursor


@pytest.fixture
def table(cursor, request):
    name = re.sub(r"\W", "_", request.node.name)
    cursor.execute(f"CREATE TABLE {name} (id BIGINT NOT NULL, name VARCHAR, price DOUBLE)")
    return name


def rows(cursor, sql, parameters=None):
    cursor.execute(sql, parameters)
    return cursor.fetchall()


def count(cursor, table):
    return rows(cursor, f"SELECT count(*) FROM {table}")[0][0]


def test_select(cursor):
    assert rows(cursor, "SELECT 1 AS one, 'two' AS two, CAST(NULL AS INT) AS three") == [(1, "two", None)]
    assert [column[0] for column in cursor.description] == ["one", "two", "three"]


def test_no_warning_with_autocommit_and_one_without(uri, recwarn):
    with flight_sql.connect(uri, autocommit=True):
        pass
    assert not recwarn.list
    with pytest.warns(UserWarning, match="autocommit"):
        flight_sql.connect(uri).close()


def test_t8_insert_runs_once_read_or_not(connection, cursor, table):
    cursor.execute(f"INSERT INTO {table} VALUES (1, 'a', 1.5), (2, 'b', NULL)")
    assert cursor.rowcount == 2
    assert cursor.fetchall() == [(2,)]
    assert count(cursor, table) == 2

    unread = connection.cursor()
    unread.execute(f"INSERT INTO {table} VALUES (3, 'c', 3.5)")
    unread.close()
    assert count(cursor, table) == 3


def test_a_ticket_of_a_write_is_read_again_without_writing_again(uri, cursor, table):
    client = flight.connect(uri)
    descriptor = command("CommandStatementQuery", field(1, f"INSERT INTO {table} VALUES (1, 'a', 0)"))
    info = client.get_flight_info(descriptor)
    assert count(cursor, table) == 1
    for _ in range(2):
        read = client.do_get(info.endpoints[0].ticket).read_all()
        assert read.to_pylist() == [{"rows_affected": 1}]
        assert read.schema == info.schema
    assert count(cursor, table) == 1
    assert len(info.endpoints) == 1
    assert info.endpoints[0].locations == []


def test_explain_analyze_of_a_write_runs_once(uri, cursor, table):
    client = flight.connect(uri)
    sql = f"EXPLAIN ANALYZE INSERT INTO {table} VALUES (1, 'a', 0)"
    info = client.get_flight_info(command("CommandStatementQuery", field(1, sql)))
    for _ in range(2):
        client.do_get(info.endpoints[0].ticket).read_all()
    assert count(cursor, table) == 1


def test_upkeep_tells_what_it_did_and_does_it_once(uri, cursor, table):
    for id in range(3):
        cursor.execute(f"INSERT INTO {table} VALUES ({id}, 'a', 0)")

    def versions():
        return count(cursor, f'"{table}$history"')

    before = versions()
    client = flight.connect(uri)
    optimize = command("CommandStatementQuery", field(1, f"OPTIMIZE {table}"))
    announced = client.get_schema(optimize).schema
    assert announced.names[:2] == ["files_before", "files_after"]
    assert cursor.adbc_execute_schema(f"OPTIMIZE {table}").names == announced.names
    assert versions() == before

    info = client.get_flight_info(optimize)
    assert info.schema == announced
    for _ in range(2):
        read = client.do_get(info.endpoints[0].ticket).read_all()
        assert read.schema == announced
        assert [(row["files_before"], row["files_after"]) for row in read.to_pylist()] == [(3, 1)]
    assert versions() == before + 1

    cursor.execute(f"RESTORE TABLE {table} TO VERSION AS OF 1")
    assert [column[0] for column in cursor.description][:2] == ["restored_version", "files_restored"]
    assert cursor.fetchall()[0][0] == 1
    assert versions() == before + 2


def test_a_schema_is_asked_for_without_running_anything(uri, cursor, table):
    client = flight.connect(uri)
    insert = command("CommandStatementQuery", field(1, f"INSERT INTO {table} VALUES (1, 'a', 0)"))
    assert client.get_schema(insert).schema.names == ["rows_affected"]
    assert count(cursor, table) == 0
    query = command("CommandStatementQuery", field(1, f"SELECT id, name FROM {table}"))
    schema = client.get_schema(query).schema
    assert schema.names == ["id", "name"]
    assert schema == client.get_flight_info(query).schema
    assert cursor.adbc_execute_schema(f"SELECT id, name FROM {table}").names == ["id", "name"]


def test_parameters(cursor, table):
    cursor.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (1, "a", 1.5))
    cursor.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (2, None, None))
    assert rows(cursor, f"SELECT * FROM {table} ORDER BY id") == [(1, "a", 1.5), (2, None, None)]
    assert rows(cursor, f"SELECT name FROM {table} WHERE id = ? AND price > ?", (1, 1.0)) == [("a",)]
    assert rows(cursor, f"SELECT name FROM {table} WHERE id = $1", (2,)) == [(None,)]


def test_parameters_keep_their_values(cursor):
    """What the planner guesses of a parameter's type must not bend the value that is bound to it."""
    assert rows(cursor, "SELECT ? + 1 AS n, ? AS s", (41, "x")) == [(42, "x")]
    assert rows(cursor, "SELECT ? + 1 AS n", (41.5,)) == [(42.5,)]
    assert rows(cursor, "SELECT v.a FROM (VALUES (?)) AS v(a)", (3,)) == [(3,)]
    assert rows(cursor, "SELECT ? AS b, ? AS n", (b"\x00\xff", None)) == [(b"\x00\xff", None)]


def test_more_than_nine_parameters_keep_their_order(cursor):
    sql = "SELECT " + ", ".join(f"? AS c{n}" for n in range(12))
    assert rows(cursor, sql, tuple(range(12))) == [tuple(range(12))]


def test_a_wrong_number_of_parameters(cursor, table):
    with pytest.raises(adbc_driver_manager.Error, match="has 3 parameters, 1 bound"):
        cursor.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (1,))
    with pytest.raises(adbc_driver_manager.Error, match="has 1 parameter, 0 bound"):
        cursor.execute("SELECT ?")
    assert count(cursor, table) == 0


def test_parameters_are_described(cursor, table):
    schema = cursor.adbc_prepare(f"INSERT INTO {table} VALUES (?, ?, ?)")
    assert schema.types == [pa.int64(), pa.string(), pa.float64()]
    assert cursor.adbc_prepare("SELECT 1").names == []


def test_executemany_is_all_or_nothing(cursor, table):
    cursor.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", [(n, f"n{n}", n / 2) for n in range(1000)])
    assert cursor.rowcount == 1000
    assert count(cursor, table) == 1000
    with pytest.raises(adbc_driver_manager.Error):
        cursor.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", [(1000, "x", 0.0), (None, "y", 0.0)])
    assert count(cursor, table) == 1000


def test_ingest_a_million_rows_and_read_them_back(cursor):
    numbers = pa.table({
        "id": pa.array(range(1_000_000), pa.int64()),
        "name": pa.array([f"name {n % 1000}" for n in range(1_000_000)]).dictionary_encode(),
        "at": pa.array(range(1_000_000), pa.timestamp("us")),
    })
    # In batches, for the driver sends each in one message, and none above 16 MiB.
    assert cursor.adbc_ingest("million", numbers.to_reader(max_chunksize=100_000), mode="create") == 1_000_000
    cursor.execute("SELECT count(*), count(DISTINCT id), sum(id), min(name) FROM million")
    assert cursor.fetchall() == [(1_000_000, 1_000_000, 499_999_500_000, "name 0")]
    cursor.execute("SELECT * FROM million")
    read = cursor.fetch_arrow_table().sort_by("id")
    assert read.column("id").equals(numbers.column("id"))
    assert read.column("name").to_pylist() == numbers.column("name").to_pylist()
    assert read.column("at").equals(numbers.column("at"))


def test_ingest_modes(cursor):
    two = pa.table({"n": pa.array([1, 2], pa.int64())})
    with pytest.raises(adbc_driver_manager.Error, match="modes_t"):
        cursor.adbc_ingest("modes_t", two, mode="append")
    assert cursor.adbc_ingest("modes_t", two, mode="create") == 2
    with pytest.raises(adbc_driver_manager.Error, match="already exists"):
        cursor.adbc_ingest("modes_t", two, mode="create")
    assert cursor.adbc_ingest("modes_t", two, mode="append") == 2
    assert count(cursor, "modes_t") == 4
    assert cursor.adbc_ingest("modes_t", two, mode="replace") == 2
    assert count(cursor, "modes_t") == 2
    assert cursor.adbc_ingest("modes_t", two, mode="create_append") == 2
    assert cursor.adbc_ingest("modes_other", two, mode="create_append") == 2
    assert (count(cursor, "modes_t"), count(cursor, "modes_other")) == (4, 2)


def test_ingest_refuses_what_it_does_not_do(cursor):
    one = pa.table({"n": [1]})
    with pytest.raises(adbc_driver_manager.Error, match="temporary"):
        cursor.adbc_ingest("temp_t", one, mode="create", temporary=True)
    with pytest.raises(adbc_driver_manager.Error, match='catalog "nowhere" does not exist'):
        cursor.adbc_ingest("other_t", one, mode="create", catalog_name="nowhere")


def test_an_ingest_that_breaks_off_writes_nothing(cursor, table):
    schema = pa.schema([("id", pa.int64()), ("name", pa.string()), ("price", pa.float64())])

    def batches():
        yield pa.record_batch([[1], ["a"], [0.5]], schema=schema)
        raise RuntimeError("the source failed")

    with pytest.raises(Exception, match="the source failed"):
        cursor.adbc_ingest(table, pa.RecordBatchReader.from_batches(schema, batches()), mode="append")
    assert count(cursor, table) == 0


def test_nested_and_unusual_types_come_through(cursor):
    given = pa.table({
        "list": pa.array([[1, 2], None, []], pa.list_(pa.int32())),
        "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
        "decimal": pa.array([None, Decimal("-1.125"), Decimal("999999999.999")], pa.decimal128(12, 3)),
        "date": pa.array([0, None, 20000], pa.date32()),
        "bytes": pa.array([b"\x00\xff", None, b""]),
        "utc": pa.array([0, None, 1_700_000_000_000_000], pa.timestamp("us", "UTC")),
        "flag": pa.array([True, None, False]),
    })
    cursor.adbc_ingest("types_t", given, mode="create")
    cursor.execute("SELECT * FROM types_t")
    assert cursor.fetch_arrow_table().to_pylist() == given.to_pylist()


def test_schema_of_info_and_rows_agree_for_aggregates(uri, cursor, table):
    client = flight.connect(uri)
    for sql in [
        f"SELECT count(*) AS n, sum(id) AS s, max(name) AS m FROM {table}",
        f"SELECT name, avg(price) FROM {table} GROUP BY name",
        f"SELECT coalesce(name, 'none') AS c, id IS NULL AS i FROM {table}",
        "SHOW TABLES",
        "EXPLAIN SELECT 1",
    ]:
        info = client.get_flight_info(command("CommandStatementQuery", field(1, sql)))
        read = client.do_get(info.endpoints[0].ticket)
        assert read.schema == info.schema, sql
        read.read_all()


def test_pandas(connection, table):
    frame = pd.DataFrame({"id": [1, 2, 3], "name": ["a", "b", None], "price": [0.5, 1.5, 2.5]})
    assert frame.to_sql(table, connection, if_exists="append", index=False) == 3
    read = pd.read_sql(f"SELECT * FROM {table} ORDER BY id", connection)
    assert read["id"].tolist() == [1, 2, 3]
    assert read["price"].sum() == 4.5
    whole = pd.read_sql_table(table, connection)
    assert sorted(whole["id"]) == [1, 2, 3]
    frame.to_sql(f"{table}_new", connection, index=False)
    frame.to_sql(f"{table}_new", connection, if_exists="replace", index=False)
    assert len(pd.read_sql(f"SELECT * FROM {table}_new", connection)) == 3


def test_polars(connection, table):
    frame = pl.DataFrame({"id": [1, 2], "name": ["a", None], "price": [0.5, 1.5]})
    assert frame.write_database(table, connection, if_table_exists="append", engine="adbc") == 2
    read = pl.read_database(f"SELECT * FROM {table} ORDER BY id", connection)
    assert read.rows() == [(1, "a", 0.5), (2, None, 1.5)]
    frame.write_database(f"{table}_new", connection, engine="adbc")
    assert pl.read_database(f"SELECT count(*) AS n FROM {table}_new", connection).item() == 2


def test_tables_are_listed(connection, table):
    objects = connection.adbc_get_objects(depth="all", table_name_filter=table).read_all().to_pylist()
    found = [
        (catalog["catalog_name"], schema["db_schema_name"], listed["table_name"], listed["table_type"],
         [column["column_name"] for column in listed["table_columns"]])
        for catalog in objects
        for schema in catalog["catalog_db_schemas"]
        for listed in schema["db_schema_tables"]
    ]
    catalog, schema = connection.adbc_current_catalog, connection.adbc_current_db_schema
    assert found == [(catalog, schema, table, "TABLE", ["id", "name", "price"])]
    columns = connection.adbc_get_table_schema(table)
    assert columns.names == ["id", "name", "price"]
    assert not columns.field("id").nullable
    assert sorted(connection.adbc_get_table_types()) == ["TABLE", "VIEW"]
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Selvedge"


def test_patterns_and_views(connection, cursor, table):
    cursor.execute(f"CREATE VIEW {table}_view AS SELECT id FROM {table}")

    def listed(**filters):
        objects = connection.adbc_get_objects(depth="tables", **filters).read_all().to_pylist()
        return {
            t["table_name"]: t["table_type"]
            for c in objects for s in c["catalog_db_schemas"] for t in s["db_schema_tables"]
        }

    assert listed(table_name_filter=f"{table}%") == {table: "TABLE", f"{table}_view": "VIEW"}
    assert listed(table_name_filter=f"{table}%", table_types_filter=["VIEW"]) == {f"{table}_view": "VIEW"}
    assert listed(table_name_filter=f"{table}%", db_schema_filter="no_such_schema") == {}


def test_session_options_are_of_one_session(uri, connection, cursor):
    cursor.execute("CREATE SCHEMA other_place")
    start = connection.adbc_current_db_schema
    connection.adbc_current_db_schema = "other_place"
    assert connection.adbc_current_db_schema == "other_place"
    cursor.execute("CREATE TABLE only_there (n INT)")
    assert count(cursor, "other_place.only_there") == 0
    with flight_sql.connect(uri, autocommit=True) as another:
        assert another.adbc_current_db_schema == start
        with another.cursor() as elsewhere, pytest.raises(adbc_driver_manager.Error):
            elsewhere.execute("SELECT * FROM only_there")
    with pytest.raises(adbc_driver_manager.Error):
        connection.adbc_current_db_schema = "no_such_schema"
    with pytest.raises(adbc_driver_manager.Error):
        connection.adbc_current_catalog = "no_such_catalog"
    assert connection.adbc_current_db_schema == "other_place"


def test_a_user_logs_in_and_keeps_a_session(uri):
    login = {"username": "ada", "password": "lovelace"}
    with flight_sql.connect(uri, db_kwargs=login, autocommit=True) as connection, connection.cursor() as cursor:
        assert rows(cursor, "SELECT 1") == [(1,)]
        assert connection.adbc_current_catalog
    client = flight.connect(uri)
    header, value = client.authenticate_basic_token("bob", "secret")
    assert header == b"authorization" and value.startswith(b"Bearer ")
    options = flight.FlightCallOptions(headers=[(header, value)])
    query = command("CommandStatementQuery", field(1, "SELECT 1 AS n"))
    info = client.get_flight_info(query, options)
    assert client.do_get(info.endpoints[0].ticket, options).read_all().to_pylist() == [{"n": 1}]
    # The ticket is bob's.
    with pytest.raises(KeyError, match="unknown or has expired"):
        client.do_get(info.endpoints[0].ticket).read_all()


def test_unknown_tokens_and_tickets_are_refused(uri):
    client = flight.connect(uri)
    forged = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + b"A" * 64)])
    query = command("CommandStatementQuery", field(1, "SELECT 1 AS n"))
    for call in [
        lambda: client.get_flight_info(query, forged),
        lambda: client.do_get(flight.Ticket(query.command), forged).read_all(),
        lambda: list(client.list_flights(options=forged)),
        lambda: list(client.list_actions(options=forged)),
        lambda: list(client.do_action(flight.Action("GetSessionOptions", b""), forged)),
    ]:
        with pytest.raises(flight.FlightUnauthenticatedError):
            call()
    # Of this call alone pyarrow does not keep the class of the error.
    with pytest.raises(OSError, match="unauthenticated"):
        client.get_schema(query, forged)
    with pytest.raises(KeyError, match="unknown or has expired"):
        ticket = flight.Ticket(any_of("TicketStatementQuery", field(1, "x" * 32)))
        client.do_get(ticket).read_all()
    with pytest.raises(pa.ArrowInvalid):
        client.do_get(flight.Ticket(b"\xff\xff\xff")).read_all()


def test_errors_read_as_in_the_shell(program, lake, cursor, table):
    sql = f"SELECT id FROM {table}\nWHERE nmae = 'a'"
    with pytest.raises(adbc_driver_manager.ProgrammingError) as raised:
        cursor.execute(sql)
    shell = subprocess.run([program, str(lake), "-c", sql], capture_output=True, text=True)
    assert shell.returncode == 1
    told = [line.strip() for line in shell.stderr.splitlines() if line.strip()]
    told[0] = told[0].removeprefix("error: ")
    for line in told:
        assert line in str(raised.value), (line, str(raised.value))
    assert "nmae" in str(raised.value) and "^" in str(raised.value)
    assert "name" in str(raised.value).replace("nmae", "")


def test_errors_have_their_class(cursor, table):
    with pytest.raises(adbc_driver_manager.ProgrammingError):
        cursor.execute("SELEC 1")
    with pytest.raises(adbc_driver_manager.Error) as missing:
        cursor.execute("SELECT * FROM no_such_table")
    assert missing.value.status_code == adbc_driver_manager.AdbcStatusCode.NOT_FOUND
    with pytest.raises(adbc_driver_manager.Error) as exists:
        cursor.execute(f"CREATE TABLE {table} (id INT)")
    assert exists.value.status_code == adbc_driver_manager.AdbcStatusCode.ALREADY_EXISTS
    with pytest.raises(adbc_driver_manager.Error):
        cursor.execute(f"INSERT INTO {table} VALUES (NULL, 'no id', 0)")
    # A failure of a running query, and the connection still works.
    with pytest.raises(adbc_driver_manager.Error):
        rows(cursor, "SELECT 1 / (value - value) FROM generate_series(1, 10) AS s(value)")
    assert rows(cursor, "SELECT 1") == [(1,)]


def test_remote_sessions_read_no_files(cursor, tmp_path):
    file = tmp_path / "secret.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(adbc_driver_manager.Error):
        rows(cursor, f"SELECT * FROM '{file}'")
    with pytest.raises(adbc_driver_manager.Error):
        cursor.execute(f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'")
    assert not (tmp_path / "out.csv").exists()


def gives_its_cpu_back(process):
    """Whether the server stops working soon after its clients have let go."""

    def worked():
        user, system = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        before = worked()
        time.sleep(0.5)
        if worked() - before < 0.1:
            return True
    return False


def test_cancel_stops_a_running_query(own_server):
    uri, process = own_server
    endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    with flight_sql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        threading.Timer(0.5, cursor.adbc_cancel).start()
        started = time.monotonic()
        with pytest.raises(adbc_driver_manager.Error) as raised:
            cursor.execute(endless)
            cursor.fetchall()
        assert time.monotonic() - started < 20
        assert raised.value.status_code == adbc_driver_manager.AdbcStatusCode.CANCELLED
        assert gives_its_cpu_back(process)


def test_dropped_reads_give_their_cpu_back(own_server):
    uri, process = own_server
    client = flight.connect(uri)
    endless = "SELECT * FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    info = client.get_flight_info(command("CommandStatementQuery", field(1, endless)))
    reader = client.do_get(info.endpoints[0].ticket)
    reader.read_chunk()
    reader.cancel()
    client.close()
    assert gives_its_cpu_back(process)


def test_a_running_query_is_cancelled_by_its_info(uri):
    client = flight.connect(uri)
    endless = "SELECT * FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    info = client.get_flight_info(command("CommandStatementQuery", field(1, endless)))
    reader = client.do_get(info.endpoints[0].ticket)
    reader.read_chunk()
    request = encoded(1, info.serialize())
    assert list(client.do_action(flight.Action("CancelFlightInfo", request)))[0].body.to_pybytes() == b"\x08\x01"
    with pytest.raises(pa.ArrowCancelled if hasattr(pa, "ArrowCancelled") else Exception, match="cancelled"):
        while True:
            reader.read_chunk()


def test_updates_by_the_update_rpc(uri, cursor, table):
    import adbc_driver_flightsql

    with adbc_driver_flightsql.connect(uri) as database, adbc_driver_manager.AdbcConnection(database) as connection:
        with adbc_driver_manager.AdbcStatement(connection) as statement:
            statement.set_sql_query(f"INSERT INTO {table} VALUES (1, 'a', 0), (2, 'b', 0)")
            assert statement.execute_update() == 2
            statement.prepare()
            assert statement.execute_update() == 2
    assert count(cursor, table) == 4


def test_upkeep_by_the_update_rpc_counts_no_rows(uri, cursor, table):
    import adbc_driver_flightsql

    for id in range(2):
        cursor.execute(f"INSERT INTO {table} VALUES ({id}, 'a', 0)")
    with adbc_driver_flightsql.connect(uri) as database, adbc_driver_manager.AdbcConnection(database) as connection:
        with adbc_driver_manager.AdbcStatement(connection) as statement:
            statement.set_sql_query(f"OPTIMIZE {table}")
            assert statement.execute_update() == 0
    operations = rows(cursor, f'SELECT operation FROM "{table}$history" ORDER BY version DESC LIMIT 2')
    assert operations == [("OPTIMIZE",), ("WRITE",)]


def test_transactions_are_not_pretended(cursor):
    with pytest.raises(adbc_driver_manager.Error):
        cursor.execute("BEGIN")


def test_many_clients_at_once(uri, cursor, table):
    failures = []

    def work(worker):
        try:
            with flight_sql.connect(uri, autocommit=True) as connection, connection.cursor() as own:
                for n in range(5):
                    own.execute(f"INSERT INTO {table} VALUES (?, ?, 0)", (worker, str(n)))
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert count(cursor, table) == 30


def test_a_client_without_a_session_can_work(uri, cursor, table):
    """pyarrow follows neither tokens nor cookies, so each of its calls comes from nobody."""
    client = flight.connect(uri)
    for n in range(3):
        insert = command("CommandStatementQuery", field(1, f"INSERT INTO {table} VALUES ({n}, 'x', 0)"))
        client.get_flight_info(insert)
    query = command("CommandStatementQuery", field(1, f"SELECT count(*) AS n FROM {table}"))
    info = client.get_flight_info(query)
    assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"n": 3}]


def test_keys_and_types_are_answered(uri):
    client = flight.connect(uri)
    for name, body in [
        ("CommandGetPrimaryKeys", field(3, "t")),
        ("CommandGetExportedKeys", field(3, "t")),
        ("CommandGetImportedKeys", field(3, "t")),
        ("CommandGetCrossReference", field(3, "t") + field(6, "u")),
        ("CommandGetXdbcTypeInfo", b""),
        ("CommandGetSqlInfo", b""),
        ("CommandGetCatalogs", b""),
        ("CommandGetDbSchemas", b""),
        ("CommandGetTables", b""),
        ("CommandGetTableTypes", b""),
    ]:
        info = client.get_flight_info(command(name, body))
        read = client.do_get(info.endpoints[0].ticket).read_all()
        assert read.schema == info.schema, name
        assert client.get_schema(command(name, body)).schema == info.schema, name
        if name.endswith(("Keys", "Reference")):
            assert read.num_rows == 0
        else:
            assert read.num_rows > 0, name


def test_a_stopped_server_ends_well_and_keeps_what_was_written(program, tmp_path):
    with serving(program, tmp_path) as (uri, process):
        with flight_sql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept (n INT)")
            cursor.execute("INSERT INTO kept VALUES (1), (2)")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    with serving(program, tmp_path) as (uri, _):
        with flight_sql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            assert count(cursor, "kept") == 2


# The few protobuf messages that no client library here sends by itself, written by hand.


def varint(n):
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def encoded(number, value):
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def field(number, text):
    return encoded(number, text.encode())


def any_of(name, body):
    return field(1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}") + encoded(2, body)


def command(name, body):
    return flight.FlightDescriptor.for_command(any_of(name, body))

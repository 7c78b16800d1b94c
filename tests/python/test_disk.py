"""A disk that is full or closed, through the program: what is named, how the program ends, what is left."""

import os
import subprocess

import pytest

from lake import Lake

IO = 3


def wrapped(program, tmp_path, command):
    """The program behind a command that changes what it may do. Where that is not allowed, the test is skipped."""
    tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"{command[0]} is not allowed here: {tried.stderr.strip()}")
    script = tmp_path / "selvedge"
    script.write_text(f"#!/bin/sh\nexec {' '.join(command)} '{program}' \"$@\"\n")
    script.chmod(0o755)
    return script


@pytest.fixture
def bound(program, tmp_path):
    """The program under the permissions of files, which root is otherwise above."""
    capabilities = "-dac_override,-dac_read_search"
    command = ["setpriv", f"--bounding-set={capabilities}"] if os.geteuid() == 0 else ["env"]
    return wrapped(program, tmp_path, command)


@pytest.fixture
def small(program, tmp_path):
    """A lake on a disk of 1 MiB that only processes of one namespace see."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = 'mount -t tmpfs -o size=1m none "$0" && echo mounted && exec cat'
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, folder]
    holder = subprocess.Popen(unshare, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(f"no disk can be mounted here: {holder.stderr.read().strip()}")
        enter = ["nsenter", "--preserve-credentials", "--user", "--mount", "--target", str(holder.pid)]
        yield Lake(wrapped(program, tmp_path, enter), folder / "lake")
    finally:
        holder.stdin.close()
        holder.wait()


def failed(lake, statement):
    """The message of a statement that the disk, not the engine, refuses."""
    done = lake.start("-c", statement)
    assert done.returncode == IO, f"{statement}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout == ""
    return done.stderr


LARGE = "SELECT md5(value::TEXT) || md5((value + 1)::TEXT) AS a FROM generate_series(1, 100000)"


def test_no_space(small):
    small.run("CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES ('x')")
    for statement in [
        f"INSERT INTO t {LARGE}",
        f"INSERT OVERWRITE t {LARGE}",
        f"CREATE TABLE u AS {LARGE}",
    ]:
        said = failed(small, statement)
        assert "data file " in said and "/lake/public/" in said and "hint: free space there" in said, said
    # Nothing was left of them that takes space, nor of the table that was to be made.
    assert small.rows("SELECT a FROM t") == [{"a": "x"}]
    small.run("INSERT INTO t VALUES ('y')", "CREATE TABLE u (a INT)")
    assert small.rows("SELECT count(*) AS n FROM t") == [{"n": 2}]


def test_full_output(lake):
    with open("/dev/full", "w") as full:
        done = subprocess.run([lake.program, lake.folder, "-c", "SELECT 1"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == IO
    assert "o space left" in done.stderr, done.stderr


def chmod(folder, mode):
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.chmod(os.path.join(place, name), mode & 0o666)
        os.chmod(place, mode)


@pytest.fixture
def closed(bound, tmp_path):
    lake = Lake(bound, tmp_path / "lake")
    lake.run("CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1)")
    yield lake
    chmod(lake.folder, 0o700)


def test_no_permission_to_write(closed):
    chmod(closed.folder, 0o500)
    assert closed.rows("SELECT a FROM t") == [{"a": 1}]
    for statement, place in [
        ("INSERT INTO t VALUES (2)", "public/t/"),
        ("INSERT OVERWRITE t VALUES (2)", "public/t/"),
        ("DELETE FROM t", "public/t/"),
        ("ALTER TABLE t ADD COLUMN b INT", "public/t/_delta_log/00000000000000000002.json"),
        ("CREATE TABLE u (a INT)", "u/_delta_log/00000000000000000000.json"),
        ("CREATE SCHEMA s", "_selvedge/catalog/"),
        ("DROP TABLE t", "_selvedge/catalog/"),
    ]:
        said = failed(closed, statement)
        assert place in said and "must be allowed to read" in said, f"{statement}: {said}"
    chmod(closed.folder, 0o700)
    assert closed.rows("SELECT a FROM t") == [{"a": 1}]
    closed.run("INSERT INTO t VALUES (2)")


def test_no_permission_to_read(closed):
    data = next(closed.table().glob("*.parquet"))
    newest = closed.table() / "_delta_log" / "00000000000000000001.json"
    for file in [data, newest]:
        file.chmod(0)
        said = failed(closed, "SELECT a FROM t")
        assert file.name in said and "must be allowed to read" in said, said
        file.chmod(0o600)
    closed.folder.chmod(0)
    said = failed(closed, "SELECT 1")
    assert f"no permission to open lake {closed.folder}" in said, said


def test_no_permission_to_make_a_lake(bound, tmp_path):
    place = tmp_path / "place"
    place.mkdir(mode=0o500)
    said = failed(Lake(bound, place / "lake"), "SELECT 1")
    assert f"no permission to open lake {place}/lake" in said, said
    assert list(place.iterdir()) == []

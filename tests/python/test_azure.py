"""A lake in Azure's store, played by Microsoft's own emulator where it is installed: `npm install --global azurite`."""

import base64
import email.utils
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest

# The emulator's account and key, the same everywhere.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
VERSION = "2021-08-06"


def make_container(endpoint, name):
    date = email.utils.formatdate(usegmt=True)
    signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{VERSION}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": VERSION, "Authorization": f"SharedKey {ACCOUNT}:{signature}"}
    url = f"{endpoint}/{ACCOUNT}/{name}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()


@pytest.fixture
def endpoint(tmp_path):
    """A server with the container `lake`."""
    azurite = shutil.which("azurite-blob")
    if azurite is None:
        pytest.skip("azurite-blob is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--blobPort", str(port)]
    server = subprocess.Popen([azurite, *options], cwd=tmp_path, stdout=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                make_container(endpoint, "lake")
                break
            except OSError:
                assert server.poll() is None, "the emulator has ended"
                time.sleep(0.1)
        yield endpoint
    finally:
        server.terminate()
        server.wait()


def test_a_lake_in_azure(program, endpoint, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", endpoint)

    def run(lake, *statements):
        arguments = [part for statement in statements for part in ("-c", statement)]
        return subprocess.run([program, lake, "--format", "jsonl", *arguments], capture_output=True, text=True)

    made = run("az://lake/a b", "CREATE TABLE t (a INT)", "INSERT INTO t SELECT * FROM generate_series(1, 1000)")
    assert made.returncode == 0, made.stderr
    changed = run("az://lake/a b", "DELETE FROM t WHERE a > 10", "INSERT OVERWRITE t SELECT a + 1 FROM t")
    assert changed.returncode == 0, changed.stderr
    found = run("az://lake/a b", "SELECT count(*) AS n, max(a) AS m FROM t")
    assert [json.loads(line) for line in found.stdout.splitlines()] == [{"n": 10, "m": 11}]
    missing = run("az://elsewhere/x", "SELECT 1")
    assert missing.returncode == 3
    assert "lake az://elsewhere/x/ cannot be read" in missing.stderr and "bucket's name" in missing.stderr

#!/usr/bin/env python3
"""Makes the quickstart's data: one file of gzipped JSON lines per release of the npm package `mime-db`.

Needs Python 3 and `npm`. Making it again gives the same rows, and with the same zlib the same bytes:

    python3 shell/examples/media-types/make.py

The dates come from the package's own HISTORY.md: registries may show the day a copy was made.
"""

import gzip
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

RELEASES = [
    "1.0.0", "1.5.0", "1.10.0", "1.20.0", "1.25.0", "1.30.0",
    "1.35.0", "1.40.0", "1.45.0", "1.50.0", "1.52.0", "1.54.0",
]  # fmt: skip
HERE = Path(__file__).parent


def fetch(version: str, folder: str) -> dict[str, str]:
    """The files of one release of the package, as text by name."""
    pack = ["npm", "pack", "--silent", f"mime-db@{version}", "--pack-destination", folder]
    name = subprocess.run(pack, check=True, capture_output=True, text=True).stdout.strip()
    with tarfile.open(Path(folder) / name) as tar:
        wanted = ("db.json", "HISTORY.md", "LICENSE")
        return {
            Path(member.name).name: tar.extractfile(member).read().decode()
            for member in tar
            if Path(member.name).name in wanted and member.name.count("/") == 1
        }


def rows(types: dict, release: str, released_on: str):
    """One row per media type; what the registry leaves out is null, so every file has every column."""
    for name, entry in sorted(types.items()):
        yield {
            "type": name,
            "source": entry.get("source"),
            "charset": entry.get("charset"),
            "compressible": entry.get("compressible"),
            "extensions": entry.get("extensions", []),
            "release": release,
            "released_on": released_on,
        }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        releases = {version: fetch(version, folder) for version in RELEASES}
    newest = releases[RELEASES[-1]]
    dates = dict(re.findall(r"^(\d+\.\d+\.\d+) / (\d{4}-\d{2}-\d{2})$", newest["HISTORY.md"], re.M))
    (HERE / "LICENSE").write_text(newest["LICENSE"])
    for version, files in releases.items():
        lines = rows(json.loads(files["db.json"]), version, dates[version])
        text = "".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in lines)
        # A time in the header would change the file at every run.
        (HERE / f"mime-db-{version}.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()

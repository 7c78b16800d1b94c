"""The loop of every peer: one JSON request a line on stdin, one JSON answer a line on stdout.

A peer stays alive for the whole run, so its interpreter start is never part of a time, and the
runner can take turns between it and the others.
"""

import json
import os
import shutil
import sys
import time


class Timer:
    """Wall and CPU seconds of a `with` block."""

    def __enter__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall = time.perf_counter() - self.wall
        self.cpu = time.process_time() - self.cpu

    def answer(self, **more):
        return {"seconds": self.wall, "cpu_seconds": self.cpu, **more}


class Peak(Timer):
    """A timer that also knows the most memory the process held meanwhile, where the system says so (Linux)."""

    def __enter__(self):
        self.megabytes = None
        try:
            with open("/proc/self/clear_refs", "w") as marks:
                # The high-water mark begins again at what is held now.
                marks.write("5")
            self.known = True
        except OSError:
            self.known = False
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        if self.known:
            with open("/proc/self/status") as status:
                [kibibytes] = [line.split()[1] for line in status if line.startswith("VmHWM:")]
            self.megabytes = int(kibibytes) * 1024 / 1e6

    def answer(self, **more):
        return super().answer(peak_megabytes=self.megabytes, **more)


def check_query(checks, conditions, approx, source):
    """One query whose only row is true in every column when all hold: checks are about all rows, conditions about
    each. `approx` begins a call that estimates distinct values. None when there is nothing to check."""
    columns = [check.replace("APPROX(", approx) for check in checks]
    columns += [f"sum(CASE WHEN {condition} THEN 0 ELSE 1 END) = 0" for condition in conditions]
    if not columns:
        return None
    return f"SELECT {', '.join(f'{column} AS c{i}' for i, column in enumerate(columns))} FROM {source}"


def forget_query(source, lists):
    """The rows of a source as SQL with joins: those on the second list are left out, those on the first lose two cells.
    All of them, as they are, without lists."""
    if not lists:
        return f"SELECT * FROM {source}"
    cells = ", ".join(f"CASE WHEN n.client_id IS NULL THEN s.{column} END AS {column}" for column in FORGOTTEN)
    return (
        f"SELECT s.* REPLACE ({cells}) FROM {source} AS s LEFT JOIN read_parquet('{lists[0]}') AS n USING (client_id) "
        f"WHERE s.client_id NOT IN (SELECT client_id FROM read_parquet('{lists[1]}'))"
    )


# The cells that a client on the first list loses.
FORGOTTEN = ("note", "country")


def all_hold(row):
    """Raises unless every column of the row of a check is true."""
    if not all(row):
        raise ValueError(f"a check does not hold: {list(row)}")


def fresh(path):
    """`path`, with nothing there."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.remove(path)
    return path


def each_timed(count, action):
    """Milliseconds of each of `count` calls of `action(i)`."""
    millis = []
    for i in range(count):
        start = time.perf_counter()
        action(i)
        millis.append((time.perf_counter() - start) * 1000)
    return {"millis": millis}


def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def serve(install, start):
    """Runs `start()` (which imports the package and returns the version and a peer), then answers requests with
    the peer's method of that name. `install` is what a user types when the package is missing."""
    try:
        version, peer = start()
    except ImportError as missing:
        say({"absent": install, "reason": str(missing)})
        return
    say({"ready": version})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say(getattr(peer, request.pop("op"))(**request))
        except Exception as error:  # the runner reports it and ends the run
            say({"error": f"{type(error).__name__}: {error}"})

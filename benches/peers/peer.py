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

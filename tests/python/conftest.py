"""Fixtures: a lake driven through the `selvedge` program. SELVEDGE_BIN names the program."""

import os
import pathlib

import pytest

from lake import Lake


def pytest_addoption(parser):
    parser.addoption("--selvedge", default=os.environ.get("SELVEDGE_BIN"), help="the program to test")


@pytest.fixture(scope="session")
def program(request):
    """The program; a run without one fails, for a test that did not run must not look like one that passed."""
    program = request.config.getoption("--selvedge")
    assert program, "set SELVEDGE_BIN to the selvedge program, or build it and run .ci/run"
    assert os.access(program, os.X_OK), f"{program} is not a program"
    return pathlib.Path(program).resolve()


@pytest.fixture
def lake(program, tmp_path):
    return Lake(program, tmp_path / "lake")

"""A whole platform for acceptance tests, as `faas up` brings it up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stack import Stack, a_directory, running


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One running `faas up` with the process runtime, shared by all tests that leave it running.

    Give what you create in it names of your own.
    """
    with a_directory() as directory, running(directory / "shared") as stack:
        yield stack


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for stacks of this test's own."""
    with a_directory() as directory:
        yield directory

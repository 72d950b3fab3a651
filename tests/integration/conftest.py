"""What integration tests of clients run against."""

from collections.abc import Iterator

import pytest

from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey
from tests.conftest import TEMPLATE
from tests.platform import Platform, running_platform


@pytest.fixture(scope="session")
def platform(postgres_server: Postgres, valkey_server: Valkey) -> Iterator[Platform]:
    """One platform for all tests; each uses function names of its own."""
    with running_platform(postgres_server, valkey_server, TEMPLATE) as platform:
        yield platform

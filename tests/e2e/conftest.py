"""Starts `memos serve` on free loopback ports for the end-to-end tests, and hands out clients."""

import pytest
from server import Server


@pytest.fixture(scope="session")
def server():
    """The bundled model without keys, shared by all tests that do not need a server of their own."""
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture(scope="session")
def model(server):
    return server.model()


@pytest.fixture
def start():
    """Starts a server of the test's own; it is stopped when the test ends."""
    running = []

    def start_one(*arguments, **options):
        running.append(Server(*arguments, **options))
        return running[-1]

    yield start_one
    for one in running:
        one.stop()


@pytest.fixture(autouse=True)
def nobody_panicked(request):
    """No test may leave a panic in the log of the shared server."""
    yield
    shared = request.node.funcargs.get("server")
    if shared is not None:
        assert "panicked" not in shared.log(), shared.log()

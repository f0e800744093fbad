from __future__ import annotations

import certificates
import pytest


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    """Keys and certificates: alice and bob are in the store, mallory is not."""
    directory = tmp_path_factory.mktemp("identities")
    store = directory / "store"
    for name in ("alice", "bob"):
        certificates.make(directory, name, store=store)
    certificates.make(directory, "mallory")
    certificates.make(directory, "old", days=(-10, -5))
    certificates.make(directory, "early", days=(5, 10))
    certificates.make(directory, "locked", password="secret")
    certificates.make(directory, "curve", key=certificates.new_key(is_rsa=False))
    return directory


@pytest.fixture
def read(directory):
    """``read("alice.pem")``: the text of a file, from the store if it is there."""

    def read(name):
        path = directory / name
        return (path if path.exists() else directory / "store" / name).read_text()

    return read


@pytest.fixture(autouse=True)
def _own_registry():
    """Give back kombu's serializers as they were; they belong to the whole process."""
    from kombu.serialization import registry

    names = ("_encoders", "_decoders", "_disabled_content_types", "type_to_name", "name_to_type")
    before = {name: getattr(registry, name).copy() for name in names}
    yield
    for name, value in before.items():
        found = getattr(registry, name)
        found.clear()
        found.update(value)

"""Addresses and contexts: which server is talked to, and as whom."""

import pytest

from faas.address import Address
from faas.contexts import Contexts, Server, choose, load, path, save
from faas.errors import InvalidSettings


@pytest.mark.parametrize(
    ("text", "target", "secure"),
    [
        ("http://localhost:8080", "localhost:8080", False),
        ("http://faas.example", "faas.example:8080", False),
        ("https://faas.example", "faas.example:443", True),
        ("https://faas.example:8443/", "faas.example:8443", True),
        ("localhost", "localhost:8080", False),
        ("127.0.0.1:9000", "127.0.0.1:9000", False),
        ("faas.example:9000", "faas.example:9000", True),
        ("[::1]:9000", "[::1]:9000", False),
        ("http://[2001:db8::1]", "[2001:db8::1]:8080", False),
        ("unix:/run/faas.sock", "unix:/run/faas.sock", False),
    ],
)
def test_addresses(text, target, secure):
    address = Address.parse(text)
    assert (address.target, address.secure) == (target, secure)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://",
        "ftp://x",
        "http://x:99999",
        "http://x/y",
        "http://x?y",
        "http://u:p@x",
        "[::1",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(InvalidSettings, match="no address"):
        Address.parse(text)


@pytest.fixture
def environment(tmp_path):
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def test_without_anything_it_is_this_machine(environment):
    assert choose(environment=environment) == Server("http://localhost:8080")


def test_contexts_survive_the_file(environment):
    file = path(environment)
    contexts = Contexts().with_server("work", Server("https://faas.example", 'a"b\\c\n', "/ca.pem"))
    contexts = contexts.with_server("home.lan", Server())
    save(file, contexts)
    assert load(file) == contexts
    assert contexts.current == "work"
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_decides(environment):
    contexts = Contexts().with_server("work", Server("https://work.example", "w"))
    save(path(environment), contexts.with_server("home", Server("https://home.example", "h")))
    assert choose(environment=environment) == Server("https://work.example", "w")
    assert choose(context="home", environment=environment).token == "h"
    environment["FAAS_CONTEXT"] = "home"
    assert choose(environment=environment).token == "h"
    assert choose(context="work", environment=environment).token == "w"
    environment["FAAS_SERVER"] = "https://other.example"
    assert choose(environment=environment) == Server("https://other.example")
    assert choose(context="work", environment=environment).token == "w"
    environment["FAAS_TOKEN"] = "e"
    assert choose(environment=environment).token == "e"
    assert choose("https://given.example", "g", environment=environment).token == "g"


def test_a_token_goes_to_its_own_server_alone(environment):
    save(
        path(environment), Contexts().with_server("work", Server("https://work.example", "secret"))
    )
    assert choose("https://work.example:443", environment=environment).token == "secret"
    assert choose("https://evil.example", environment=environment).token is None
    assert choose("http://work.example:443", environment=environment).token is None


@pytest.mark.parametrize(
    "text", ["current = ", "[contexts.a]\n", "contexts = 3", '[contexts.a]\nserver = "ftp://x"']
)
def test_a_broken_file_is_named(environment, text):
    file = path(environment)
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(InvalidSettings, match=r"contexts\.toml"):
        choose(environment=environment)


def test_an_unknown_context_is_named_with_those_there_are(environment):
    save(path(environment), Contexts().with_server("work", Server()))
    with pytest.raises(InvalidSettings, match=r"'wrok'.*work"):
        choose(context="wrok", environment=environment)


def test_removing_the_current_context_leaves_none_current():
    assert Contexts().with_server("a", Server()).without("a") == Contexts()

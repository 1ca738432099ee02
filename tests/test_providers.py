"""Records by which plugins offer what they have."""

import pickle

import pytest

from dpcore.errors import ProviderError
from dpcore.hookspecs import SPECS
from dpcore.providers import KINDS, Command, Provider


class Loud:
    pass


def test_a_provider_takes_a_class_or_where_to_find_it():
    assert Provider(name="loud", target=Loud).target is Loud
    assert Provider(name="loud", target="acme.loud:Loud.Inner").target == "acme.loud:Loud.Inner"


def test_a_provider_is_a_value_that_pickles():
    loud = Provider[Loud](name="loud", target=Loud, schemes=("loud+tls",), capabilities=frozenset({"kills"}))
    assert pickle.loads(pickle.dumps(loud)) == loud
    assert hash(loud) == hash(pickle.loads(pickle.dumps(loud)))
    with pytest.raises(AttributeError):
        loud.name = "other"


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("name", "Loud", "name='Loud' must be lower-case words joined by '-'"),
        ("name", "loud_broker", "must be lower-case words"),
        ("name", "-loud", "must be lower-case words"),
        ("name", "", "must be lower-case words"),
        ("name", 3, "must be lower-case words"),
        ("target", "acme.Loud", "target='acme.Loud' must be 'package.module:Name' or a class"),
        ("target", "acme loud:Loud", "must be 'package.module:Name' or a class"),
        ("target", ":Loud", "must be 'package.module:Name' or a class"),
        ("target", Loud(), "must be 'package.module:Name' or a class"),
        ("summary", None, "summary=None must be a line of text"),
        ("schemes", "loud", "schemes='loud' must be a tuple of URL schemes"),
        ("schemes", ("LOUD",), "must be a tuple of URL schemes"),
        ("extra", "", "extra='' must be what pip installs"),
        ("capabilities", {"kills"}, "capabilities={'kills'} must be a frozenset of names"),
        ("capabilities", frozenset({1}), "must be a frozenset of names"),
        ("api", 0, "api=0 must be a whole number from 1 on"),
        ("api", True, "must be a whole number from 1 on"),
    ],
)
def test_a_provider_that_makes_no_sense_says_why_to_its_author(field, value, wanted):
    with pytest.raises(ProviderError) as caught:
        Provider(**{"name": "loud", "target": "acme:Loud", field: value})
    assert wanted in str(caught.value)
    assert str(caught.value).startswith("provider ")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("Hello", "acme:hello"), "command 'Hello': name='Hello' must be lower-case words"),
        (("hello", "acme"), "command 'hello': target='acme' must be 'package.module:Name', which names a click"),
        (("hello", "acme:hello", 1), "command 'hello': summary=1 must be a line of text"),
    ],
)
def test_a_command_that_makes_no_sense_says_why(arguments, wanted):
    with pytest.raises(ProviderError) as caught:
        Command(*arguments)
    assert wanted in str(caught.value)


def test_every_kind_has_the_hook_that_offers_it():
    assert {kind.hook for kind in KINDS.values()} == {spec.name for spec in SPECS.values() if spec.kind == "offer"}
    assert [kind.table for kind in KINDS.values()] == [
        "brokers",
        "queues",
        "triggers",
        "io_managers",
        "executors",
        "run_stores",
    ]

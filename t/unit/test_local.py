import copy
import operator
import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.local import (
    LazyModule,
    PromiseProxy,
    Proxy,
    class_property,
    create_module,
    get_compat_module,
    get_origins,
    maybe_evaluate,
    reclassmethod,
    recreate_module,
    try_import,
)
from celery.utils.threads import Local


class Thing:
    """The thing's own text."""

    def __init__(self):
        self.value = 1

    def __enter__(self):
        return "entered"

    def __exit__(self, *exc_info):
        self.value = "left"


def unbound():
    raise RuntimeError("nothing is bound")


@given(
    st.integers(),
    st.integers(min_value=1, max_value=20),
    st.sampled_from(
        [
            "add",
            "sub",
            "mul",
            "floordiv",
            "truediv",
            "mod",
            "lshift",
            "rshift",
            "and_",
            "xor",
            "or_",
            "lt",
            "le",
            "eq",
            "ne",
            "gt",
            "ge",
        ]
    ),
)
def test_operators_work_as_on_the_object(left, right, name):
    function = getattr(operator, name)
    assert function(Proxy(lambda: left), right) == function(left, right)


@given(st.integers(), st.integers(min_value=1))
def test_operators_work_with_the_proxy_on_the_right(left, right):
    assert left + Proxy(lambda: right) == left + right
    assert left - Proxy(lambda: right) == left - right
    assert left | Proxy(lambda: right) == left | right


@pytest.mark.parametrize("function", [len, str, repr, list, sorted, bool, hash, abs, int, float, operator.neg])
def test_functions_see_the_object(function):
    value = 3 if function in (hash, abs, int, float, operator.neg) else (2, 1)
    assert function(Proxy(lambda: value)) == function(value)


def test_a_proxy_passes_for_its_object():
    thing = Thing()
    proxy = Proxy(lambda: thing)
    proxy.value = 7

    assert isinstance(proxy, Thing)
    assert proxy.__class__ is Thing
    assert (thing.value, proxy.value, proxy.__dict__, dir(proxy)) == (7, 7, {"value": 7}, dir(thing))
    del proxy.value
    assert not hasattr(thing, "value")


def test_items_are_read_set_and_deleted():
    box = {}
    proxy = Proxy(lambda: box)
    proxy["a"] = 1

    assert proxy["a"] == 1
    assert "a" in proxy
    del proxy["a"]
    assert box == {}


def test_a_proxy_of_a_context_manager_is_one():
    thing = Thing()
    with Proxy(lambda: thing) as entered:
        assert entered == "entered"
    assert thing.value == "left"


def test_name_module_and_text_are_the_object_s_unless_given():
    def function():
        """What it does."""

    plain, named = Proxy(lambda: function), Proxy(lambda: function, name="other", __doc__="text")

    assert (plain.__name__, plain.__doc__, plain.__module__) == ("function", "What it does.", __name__)
    assert (named.__name__, named.__doc__) == ("other", "text")
    assert Proxy.__module__ == PromiseProxy.__module__ == "celery.local"
    assert "at the moment of use" in Proxy.__doc__


def test_arguments_are_given_to_the_function():
    assert Proxy(lambda a, b=0: a + b, (1,), {"b": 2}) == 3


def test_an_unbound_proxy_is_false_and_raises_otherwise():
    proxy = Proxy(unbound)

    assert not proxy
    assert dir(proxy) == []
    for use in (repr, lambda p: p.attribute, len):
        with pytest.raises(RuntimeError, match="bound"):
            use(proxy)


def test_a_proxy_pickles_and_copies_as_its_object():
    proxy = Proxy(lambda: Thing())

    assert type(pickle.loads(pickle.dumps(proxy))) is Thing
    assert type(copy.copy(proxy)) is Thing


def test_a_proxy_of_a_local_follows_its_attribute():
    local = Local()
    proxy = local("app")
    local.app = "one"
    assert proxy == "one"
    local.app = "two"
    assert proxy == "two"


def test_a_promise_is_kept_once():
    made = []

    def make():
        made.append(Thing())
        return made[-1]

    promise = PromiseProxy(make)
    assert not promise.__evaluated__()
    assert promise.value == 1
    assert promise.__evaluated__()
    assert maybe_evaluate(promise) is promise._get_current_object() is made[0]
    assert len(made) == 1
    assert maybe_evaluate(5) == 5


def test_a_promise_calls_back_when_kept():
    calls = []
    promise = PromiseProxy(Thing)
    promise.__then__(calls.append, "before")
    assert calls == []
    promise.value
    promise.__then__(calls.append, "after")
    assert calls == ["before", "after"]


def test_a_promise_that_fails_can_be_tried_again():
    answers = [ValueError("not yet"), Thing()]

    def make():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    promise = PromiseProxy(make)
    with pytest.raises(ValueError, match="not yet"):
        promise.value
    assert promise.value == 1


def test_an_attribute_error_of_the_maker_is_not_swallowed():
    with pytest.raises(AttributeError, match="nosuch"):
        PromiseProxy(lambda: object().nosuch).value


def test_class_properties_are_read_and_set_on_instances():
    class Counter:
        total = 1

        @class_property
        def doubled(cls):
            return cls.total * 2

        @doubled.setter
        def doubled(cls, value):
            cls.total = value // 2

    assert (Counter.doubled, Counter().doubled) == (2, 2)
    Counter().doubled = 10
    assert Counter.total == 5


def test_a_class_property_without_setter_cannot_be_set():
    class Fixed:
        value = class_property(lambda cls: 1)

    with pytest.raises(AttributeError):
        Fixed().value = 2


def test_a_method_becomes_a_class_method():
    class Base:
        def who(self):
            return self

        whose = reclassmethod(who)

    assert Base.whose() is Base


def test_missing_modules_are_replaced():
    assert try_import("no.such.module", "default") == "default"
    assert try_import("json").__name__ == "json"


@pytest.fixture
def no_new_modules():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.usefixtures("no_new_modules")
def test_lazy_modules_import_names_when_asked():
    create_module("lazy_test_package", {"old": 1})
    homes = {"string": ["digits", "ascii_letters"]}
    _, new = recreate_module("lazy_test_package", by_module=homes, direct={"js": "json"}, added=2)

    assert new.digits == "0123456789"
    assert "ascii_letters" in vars(new)
    assert new.js.dumps([]) == "[]"
    assert new.added == 2
    assert {"digits", "js"} <= set(dir(new))
    with pytest.raises(AttributeError, match="nope"):
        new.nope


@pytest.mark.usefixtures("no_new_modules")
def test_old_modules_find_their_names_on_the_current_app():
    import celery

    module = get_compat_module(celery, "registry")
    assert isinstance(module, LazyModule)
    assert module.tasks is celery.current_app.tasks


def test_origins_are_turned_around():
    assert get_origins({"m": ["a", "b"], "n": ["c"]}) == {"a": "m", "b": "m", "c": "n"}

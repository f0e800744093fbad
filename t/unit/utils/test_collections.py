import copy
import pickle
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from celery.utils.collections import (
    AttributeDict,
    BufferMap,
    ChainMap,
    ConfigurationView,
    DictAttribute,
    Evictable,
    LimitedSet,
    Messagebuffer,
    OrderedDict,
    force_mapping,
    lpmerge,
)


def test_keys_are_attributes():
    d = AttributeDict(a=1)
    d.b = 2
    assert (d.a, d["b"]) == (1, 2)
    with pytest.raises(AttributeError, match="'AttributeDict' object has no attribute 'nope'"):
        d.nope


def test_attributes_are_keys():
    obj = SimpleNamespace(a=1)
    d = DictAttribute(obj)
    d["b"] = 2
    d.c = 3
    assert (d["a"], obj.b, obj.c, d.get("z", 9), "b" in d) == (1, 2, 3, 9, True)
    assert d.setdefault("d", 4) == 4
    assert obj.d == 4
    assert {"a", "b"} <= set(d) == set(d.keys())
    assert ("a", 1) in list(d.items())
    assert 1 in list(d.values())
    with pytest.raises(KeyError):
        d["nope"]
    assert force_mapping(obj)["a"] == 1
    assert force_mapping({"a": 1}) == {"a": 1}


def test_merging_passes_over_none():
    assert lpmerge({"a": 1, "b": 2}, {"a": None, "b": 3}) == {"a": 1, "b": 3}
    assert OrderedDict(a=1) == {"a": 1}


# -- layers


def test_reads_take_the_first_layer_and_writes_go_there():
    layers = ChainMap({"a": 1}, {"a": 2, "b": 3})
    layers["c"] = 4
    assert (layers["a"], layers["b"], layers.changes) == (1, 3, {"a": 1, "c": 4})
    assert sorted(layers) == ["a", "b", "c"]
    assert len(layers) == 3
    assert dict(layers.items()) == {"a": 1, "b": 3, "c": 4}
    assert sorted(layers.values()) == [1, 3, 4]
    assert list(layers.iterkeys()) == list(layers)
    assert "b" in layers
    assert layers.get("z", 5) == 5
    assert repr(layers) == "ChainMap({'a': 1, 'c': 4}, {'a': 2, 'b': 3})"


def test_only_changes_are_removed():
    layers = ChainMap({"a": 1}, {"b": 3})
    assert layers.pop("a") == 1
    assert layers.pop("b", "default") == "default"
    for remove in (lambda: layers.pop("b"), lambda: layers.__delitem__("b")):
        with pytest.raises(KeyError, match="first mapping"):
            remove()
    layers["x"] = 1
    layers.clear()
    assert layers.maps == [{}, {"b": 3}]
    assert layers
    assert not ChainMap({})


def test_new_defaults_lie_right_below_the_changes():
    layers = ChainMap({"a": 1}, {"b": 2})
    layers.add_defaults({"a": 8, "b": 9})
    assert (layers["a"], layers["b"]) == (1, 9)


def test_updates_are_told():
    told = []
    layers = ChainMap({})
    layers.bind_to(lambda *args, **kwargs: told.append((args, kwargs)))
    layers.update({"a": 1}, b=2)
    assert told == [(({"a": 1},), {"b": 2})]
    assert layers.changes == {"a": 1, "b": 2}
    assert layers.setdefault("a", 5) == 1
    assert layers.setdefault("z", 5) == 5


def test_a_copy_has_changes_of_its_own():
    layers = ChainMap({"a": 1}, {"b": 2})
    for other in (layers.copy(), copy.copy(layers)):
        other["a"] = 9
        assert (layers["a"], other["b"]) == (1, 2)
    assert ChainMap.fromkeys(["a"], 1)["a"] == 1


def test_keys_may_be_translated():
    assert ChainMap({"A": 1}, key_t=str.upper)["a"] == 1


def test_a_view_finds_keys_with_and_without_prefix():
    view = ConfigurationView({"app_foo": 1}, [{"foo": 4, "BAR": 3}], keys=[str.upper], prefix="app")
    assert (view["foo"], view.foo, view["app_foo"], view["bar"]) == (1, 1, 1, 3)
    assert "bar" in view
    assert "nope" not in view
    with pytest.raises(KeyError, match="app_nope"):
        view["nope"]
    with pytest.raises(AttributeError):
        view.nope
    assert view.get("nope", 7) == 7
    assert view.first("nope", "bar") == 3
    assert view.first("nope") is None


def test_a_view_is_changed_by_attribute_and_swapped():
    one = ConfigurationView({"a": 1}, [{"b": 2}])
    other = ConfigurationView({"z": 1})
    one.c = 3
    assert one.changes == {"a": 1, "c": 3}
    other.swap_with(one)
    assert (other.a, other.b) == (1, 2)
    assert copy.copy(one).maps == one.maps == one.copy().maps
    one.clear()
    assert one.maps == [{}, {"b": 2}]


# -- sets that forget


def test_the_oldest_go_when_there_are_too_many():
    limited = LimitedSet(maxlen=3)
    for item, now in (("a", 1), ("b", 5), ("c", 3), ("d", 4)):
        limited.add(item, now=now)
    assert list(limited) == ["c", "d", "b"]
    assert limited.as_dict() == {"b": 5.0, "c": 3.0, "d": 4.0}
    limited.add("c", now=9)
    assert list(limited) == ["d", "b", "c"]
    assert [limited.pop(), limited.pop(), limited.pop(), limited.pop("none")] == ["d", "b", "c", "none"]


def test_the_old_go_but_some_stay():
    limited = LimitedSet(maxlen=10, expires=5, minlen=2)
    for item, now in (("a", 1), ("b", 5), ("c", 3)):
        limited.add(item, now=now)
    limited.purge(now=8.5)
    assert list(limited) == ["c", "b"]
    limited.purge(now=1000)
    assert len(limited) == 2


def test_a_set_travels_in_a_pickle_with_its_times():
    limited = LimitedSet(maxlen=5, expires=10, minlen=1)
    limited.add("a")
    restored = pickle.loads(pickle.dumps(limited))
    assert restored == limited
    assert (restored.maxlen, restored.expires, restored.minlen) == (5, 10, 1)
    assert limited.__reduce__()[1][:2] == (5, 10)


def test_sets_are_updated_from_all_kinds():
    limited = LimitedSet(data=["a"])
    limited.update(["b"])
    limited.update({"c": 1.0})
    limited.update(LimitedSet(data=["d"]))
    limited.update(None)
    limited.update(limited)
    assert set(limited) == {"a", "b", "c", "d"}
    with pytest.raises(ValueError, match="float timestamp"):
        limited.update({"x": 1})
    limited.discard("a")
    limited.pop_value("nope")
    assert "a" not in limited
    limited.clear()
    assert not limited


def test_times_of_a_faster_clock_do_not_live_for_ever():
    limited = LimitedSet(expires=10)
    limited.update({"from elsewhere": time.monotonic() + 1e9})
    limited.purge(now=time.monotonic() + 11)
    assert not limited


@pytest.mark.parametrize("options", [{"maxlen": -1}, {"maxlen": 5, "minlen": 10}, {"expires": -1}])
def test_limits_must_make_sense(options):
    with pytest.raises(ValueError):
        LimitedSet(**options)


class LimitedSetStory(RuleBasedStateMachine):
    """The set agrees with a list of (time, item) that is sorted and cut."""

    def __init__(self):
        super().__init__()
        self.limited = LimitedSet(maxlen=4, expires=10, minlen=1)
        self.model = {}

    def cut(self, now):
        newest_last = sorted(self.model.items(), key=lambda entry: entry[1])[-4:]
        keep = newest_last[-1:]
        self.model = dict([entry for entry in newest_last[:-1] if entry[1] >= now - 10] + keep)

    @rule(item=st.integers(0, 6), now=st.floats(0, 40))
    def add(self, item, now):
        if now in self.model.values():
            return
        self.limited.add(item, now=now)
        self.model[item] = now
        if len(self.model) > 4:
            self.cut(now)

    @rule(now=st.floats(0, 60))
    def purge(self, now):
        self.limited.purge(now)
        self.cut(now)

    @rule(item=st.integers(0, 6))
    def discard(self, item):
        self.limited.discard(item)
        self.model.pop(item, None)

    @invariant()
    def same(self):
        assert list(self.limited) == sorted(self.model, key=self.model.get)


TestLimitedSetStory = LimitedSetStory.TestCase
TestLimitedSetStory.settings = settings(max_examples=40, stateful_step_count=25)


# -- buffers


def test_a_buffer_keeps_the_newest():
    buffer = Messagebuffer(3)
    buffer.extend([1, 2, 3, 4])
    buffer.put(5)
    assert (buffer[0], len(buffer), 5 in buffer, 1 in buffer) == (3, 3, True, False)
    assert list(buffer) == [3, 4, 5]
    assert buffer.take("none") == "none"
    with pytest.raises(buffer.Empty):
        buffer.take()
    buffer.extend([1, 2])
    assert list(reversed(buffer)) == [2, 1]
    assert repr(Messagebuffer(None)) == "<Messagebuffer: 0/None>"


def test_a_map_of_buffers_has_one_limit_for_all():
    buffers = BufferMap(3, bufmaxsize=2)
    for number in range(3):
        buffers.put("a", number)
    assert buffers.total == 2
    buffers.put("b", 1)
    buffers.extend("c", [1, 2])
    assert buffers.total == 3
    assert sum(map(len, buffers.values())) == 3
    assert buffers.take("c") == 1
    assert buffers.take("nope", "none") == "none"
    with pytest.raises(Evictable.Empty):
        buffers.take("nope")
    assert repr(buffers) == "<BufferMap: 2/3>"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=40))
def test_a_map_of_buffers_counts_right(puts):
    buffers = BufferMap(7, bufmaxsize=4)
    for key, item in puts:
        buffers.put(key, item)
        assert buffers.total == sum(map(len, buffers.values())) <= 7
    assert BufferMap(5, {"a": [1, 2]}).take("a") == 1

import functools
import inspect
import json
import pickle
from copy import deepcopy
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils import functional
from celery.utils.functional import (
    arity_greater,
    chunks,
    evaluate_promises,
    first,
    firstmethod,
    fun_accepts_kwargs,
    fun_takes_argument,
    head_from_fun,
    is_numeric_value,
    lookahead,
    mattrgetter,
    maybe,
    mlazy,
    padlist,
    regen,
    seq_concat_item,
    seq_concat_seq,
    uniq,
)

ITEMS = st.lists(st.integers(0, 5), max_size=20)


@given(ITEMS, st.integers(1, 7))
def test_chunks_hold_everything_in_order(items, size):
    parts = list(chunks(iter(items), size))
    assert [item for part in parts for item in part] == items
    assert all(len(part) == size for part in parts[:-1])


@given(ITEMS, st.integers(0, 10))
def test_lists_are_padded_to_size(items, size):
    padded = padlist(items, size, default="x")
    assert len(padded) == size
    assert padded[: len(items)] == items[:size]


@given(ITEMS)
def test_uniq_keeps_the_first_of_each(items):
    assert list(uniq(items)) == sorted(set(items), key=items.index)


@given(ITEMS)
def test_lookahead_pairs_each_item_with_the_next(items):
    assert list(lookahead(iter(items))) == list(zip(items, [*items[1:], None][: len(items)], strict=True))


@given(ITEMS)
def test_a_regenerated_iterator_is_the_list(items):
    again = regen(iter(items))
    assert again == items
    assert list(again) == list(again) == items
    assert len(again) == len(items)
    assert bool(again) == bool(items)
    assert json.loads(json.dumps(again)) == items
    assert pickle.loads(pickle.dumps(again)) == items
    assert deepcopy(again) == items
    assert isinstance(again, list)


def test_regen_reads_no_further_than_asked():
    numbers = regen(count())
    assert bool(numbers)
    assert numbers[3] == 3
    assert list(islice(numbers, 2)) == [0, 1]
    assert "0, 1, 2, 3, ..." in repr(numbers)


def test_two_readers_of_one_regen_see_the_same():
    numbers = regen(iter([1, 2, 3]))
    assert list(zip(numbers, numbers, strict=True)) == [(1, 1), (2, 2), (3, 3)]
    assert numbers[-1] == 3
    assert numbers.__length_hint__() == 3
    with pytest.raises(IndexError):
        numbers[3]


def test_lists_and_tuples_need_no_regen():
    items, pair = [1], (1,)
    assert regen(items) is items
    assert regen(pair) is pair


def test_first_finds_behind_promises():
    assert first(lambda n: n > 2, [1, None, mlazy(lambda: 3), 4]) == 3
    assert first(lambda n: n > 9, [1]) is None


def test_a_promise_is_evaluated_once():
    calls = []
    promise = mlazy(lambda: calls.append(1) or len(calls))
    assert list(evaluate_promises([promise, promise, "x"])) == [1, 1, "x"]
    assert promise.evaluated


class Maker:
    def __init__(self, answer):
        self.make = lambda extra: answer and answer + extra


def test_firstmethod_gives_the_first_answer():
    find = firstmethod("make")
    assert find([object(), Maker(None), Maker(1), Maker(5)], 10) == 11
    assert find([Maker(None)], 1) is None
    assert firstmethod("make", on_call=lambda method, extra: method(extra) + 1)([Maker(1)], 1) == 3


def test_small_tools():
    assert maybe(int, "3") == 3
    assert maybe(int, None) is None
    assert mattrgetter("real", "nope")(3) == {"real": 3, "nope": None}
    assert [is_numeric_value(value) for value in (1, 1.5, True, "1", None)] == [True, True, False, False, False]
    assert functional.noop(1, a=2) is None
    assert functional.pass1("a", "b") == "a"
    with functional.DummyContext() as context:
        assert context


def test_sequences_are_joined_in_the_kind_they_have():
    assert seq_concat_item((1,), 2) == (1, 2)
    assert seq_concat_item([1], 2) == [1, 2]
    assert seq_concat_seq([1], (2,)) == [1, 2]
    assert seq_concat_seq((1,), [2, 3]) == [1, 2, 3]
    assert seq_concat_seq([1], (2, 3)) == (1, 2, 3)


def test_kombu_s_tools_are_handed_on():
    from kombu.utils.functional import LRUCache, lazy

    assert functional.LRUCache is LRUCache
    assert issubclass(mlazy, lazy)
    assert all(hasattr(functional, name) for name in functional.__all__)
    with pytest.raises(AttributeError):
        functional.nope


# -- heads


def plain(a, b=1):
    pass


def rich(a, /, b, *args, c, d=..., **kwargs):
    pass


def keyword_only(self, x, *, key=[]):  # noqa: B006
    pass


@functools.wraps(plain)
def wrapper(*args, **kwargs):
    pass


class Callable:
    def __call__(self, x, y=2):
        pass

    def method(self, q):
        pass


@pytest.mark.parametrize("function", [plain, rich, keyword_only, wrapper, Callable(), Callable().method, len])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1,), {}),
        ((1, 2), {}),
        ((1, 2, 3), {}),
        ((1, 2), {"c": 1}),
        ((1,), {"b": 1, "z": 2}),
        ((1,), {"q": 1}),
    ],
)
def test_a_head_takes_what_the_function_takes(function, args, kwargs):
    head = head_from_fun(function)
    try:
        inspect.signature(function, follow_wrapped=False).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            head(*args, **kwargs)
    else:
        assert head(*args, **kwargs) == 1


def test_a_head_complains_in_the_function_s_name():
    with pytest.raises(TypeError, match=r"plain\(\) missing 1 required positional argument: 'a'"):
        head_from_fun(plain)()


def test_a_bound_head_has_no_self():
    head = head_from_fun(keyword_only, bound=True)
    assert head(1, key=2) == 1
    with pytest.raises(TypeError, match="missing 1 required"):
        head()
    assert head_from_fun(wrapper, bound=True)(1, 2, 3) == 1


def test_a_head_keeps_the_default_values():
    signature = inspect.signature(head_from_fun(rich))
    assert signature.parameters["d"].default is inspect.signature(rich).parameters["d"].default
    assert str(signature).startswith("(a, /, b, *args, c, d=")


def test_what_has_no_signature_takes_anything():
    assert head_from_fun(dict)(1, 2, a=3) == 1
    assert head_from_fun(functools.partial(plain, 1))(2) == 1


def test_arity_counts_positional_arguments():
    assert arity_greater(plain, 1)
    assert not arity_greater(plain, 2)
    assert arity_greater(wrapper, 99)


def test_arguments_are_found_by_name_or_position():
    assert fun_takes_argument("a", plain)
    assert not fun_takes_argument("z", plain)
    assert fun_takes_argument("z", plain, position=2)
    assert not fun_takes_argument("z", plain, position=3)
    assert fun_takes_argument("z", rich)
    assert fun_accepts_kwargs(rich)
    assert not fun_accepts_kwargs(plain)

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery import states
from celery.states import state

NAMES = st.sampled_from([*states.ALL_STATES, "PROGRESS", "REJECTED", "made up"])


@pytest.mark.parametrize(
    ("less", "more"),
    [("PENDING", "SUCCESS"), ("RETRY", "STARTED"), ("PROGRESS", "FAILURE"), ("STARTED", "REVOKED"), ("PENDING", "X")],
)
def test_states_compare_by_importance(less, more):
    assert state(less) < more
    assert state(more) > less
    assert not state(less) >= more


def test_states_of_users_rank_alike():
    assert states.precedence("PROGRESS") == states.precedence(None) == states.NONE_PRECEDENCE == 2


@given(NAMES, NAMES)
def test_the_order_agrees_with_precedence(one, other):
    assert (state(one) > state(other)) == (states.precedence(one) < states.precedence(other))
    assert (state(one) <= state(other)) == (states.precedence(one) >= states.precedence(other))


def test_a_state_is_equal_to_its_name_and_travels_in_pickles():
    assert state("SUCCESS") == "SUCCESS"
    assert {state("SUCCESS"): 1}["SUCCESS"] == 1
    assert pickle.loads(pickle.dumps(state("SUCCESS"))) > "PENDING"


def test_every_state_is_either_ready_or_not():
    assert states.READY_STATES.isdisjoint(states.UNREADY_STATES)
    assert states.ALL_STATES | {"REJECTED"} == states.READY_STATES | states.UNREADY_STATES
    assert states.PROPAGATE_STATES <= states.EXCEPTION_STATES

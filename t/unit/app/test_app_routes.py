"""Routes: which queue and which options a task gets, and who has the last word."""

from __future__ import annotations

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
from kombu import Queue

from celery.app.amqp import Queues
from celery.app.routes import MapRoute, Router, expand_router_string, prepare
from celery.exceptions import QueueNotFound

APP = SimpleNamespace(conf=SimpleNamespace(task_default_queue="default"))


def router(routes=None, queues=None, **options):
    queues = Queues({"default": {}, "a": {"exchange": "ae"}} if queues is None else queues)
    return Router(prepare(routes), queues, app=APP, **options)


def named(options):
    return {**options, "queue": options["queue"].name} if "queue" in options else options


class TestMaps:
    def test_an_exact_name_goes_before_a_pattern(self):
        routes = MapRoute([("a.*", {"queue": "glob"}), ("a.b", {"queue": "exact"})])

        assert routes("a.b") == {"queue": "exact"}
        assert routes("a.c") == {"queue": "glob"}

    def test_the_first_pattern_wins(self):
        routes = MapRoute([("a.*", "first"), ("a.b.*", "second")])

        assert routes("a.b.c") == {"queue": "first"}

    def test_names_are_matched_with_case_and_as_a_whole(self):
        routes = MapRoute({"feed.*": "q"})

        assert routes("Feed.x") is None
        assert routes("my.feed.x") is None

    def test_compiled_patterns_match_from_the_start(self):
        routes = MapRoute({re.compile(r"(video|image)\.tasks\..*"): {"queue": "media"}})

        assert routes("video.tasks.x") == {"queue": "media"}
        assert routes("xvideo.tasks.x") is None

    def test_a_name_without_star_is_no_pattern(self):
        assert MapRoute({"d.?": "x"})("d.y") is None

    def test_the_answer_may_be_changed_by_its_reader(self):
        routes = MapRoute({"a": {"queue": "q"}})
        routes("a")["queue"] = "spoiled"

        assert routes("a") == {"queue": "q"}


class TestPrepare:
    def test_nothing_is_no_router(self):
        assert prepare(None) == ()

    def test_mappings_and_pairs_become_maps(self):
        first, second = prepare([{"a": "b"}, [("c", "d")]])

        assert first("a") == {"queue": "b"}
        assert second("c") == {"queue": "d"}

    def test_functions_stay(self):
        def route(*args, **kwargs):
            return None

        assert prepare(route) == [route]
        assert prepare((route,)) == [route]

    def test_a_path_is_loaded_and_a_class_made_an_object(self):
        class Custom:
            def route_for_task(self, task, args=None, kwargs=None):
                return {"queue": "custom"}

        module = sys.modules["routers_of_this_test"] = ModuleType("routers_of_this_test")
        module.Custom, module.function = Custom, len
        try:
            assert isinstance(expand_router_string("routers_of_this_test.Custom"), Custom)
            assert expand_router_string("routers_of_this_test:function") is len
            assert isinstance(prepare("routers_of_this_test:Custom")[0], Custom)
        finally:
            del sys.modules["routers_of_this_test"]

    def test_an_object_is_taken_as_it_is(self):
        assert expand_router_string(5) == 5


class TestRouter:
    def test_without_a_route_the_default_queue_takes_the_task(self):
        assert named(router().route({}, "t")) == {"queue": "default"}

    def test_a_route_names_queue_and_options(self):
        found = router({"t": {"queue": "a", "priority": 3}}).route({}, "t")

        assert named(found) == {"queue": "a", "priority": 3}

    def test_the_caller_goes_before_the_route(self):
        found = router({"t": {"queue": "a", "priority": 3, "routing_key": "r"}}).route({"priority": 5}, "t")

        assert named(found) == {"queue": "a", "priority": 5, "routing_key": "r"}

    def test_a_queue_of_the_caller_goes_before_the_route_whose_other_options_count(self):
        found = router({"t": {"queue": "a", "priority": 3}}).route({"queue": "default", "serializer": None}, "t")

        assert named(found) == {"queue": "default", "priority": 3}

    def test_without_a_route_options_of_no_value_stay_beside_a_queue(self):
        assert named(router().route({"queue": "a", "priority": None}, "t")) == {"queue": "a", "priority": None}

    def test_a_queue_object_is_taken_as_it_is(self):
        queue = Queue("own")

        assert router().route({"queue": queue}, "t")["queue"] is queue

    def test_options_of_no_value_do_not_hide_the_route(self):
        assert named(router({"t": {"queue": "a"}}).route({"queue": None, "exchange": None}, "t")) == {"queue": "a"}

    def test_a_route_to_an_exchange_needs_no_queue(self):
        found = router({"t": {"exchange": "e", "routing_key": "k"}}).route({}, "t")

        assert found == {"exchange": "e", "routing_key": "k"}

    def test_a_route_of_options_alone_goes_to_the_default_queue(self):
        assert named(router({"t": {"priority": 9}}).route({}, "t")) == {"queue": "default", "priority": 9}

    def test_an_exchange_of_the_caller_keeps_the_default_queue_declared(self):
        assert named(router().route({"exchange": "e"}, "t")) == {"queue": "default", "exchange": "e"}

    def test_routers_are_asked_until_one_answers(self):
        asked = []

        def silent(name, args, kwargs, options, task=None, **kw):
            asked.append((name, args, kwargs, options, task))

        class Speaking:
            def route_for_task(self, task, args, kwargs):
                return "a"

        found = router([silent, Speaking(), {"t": "default"}]).route({"x": 1}, "t", (1,), {"k": 2}, task_type="task")

        assert named(found) == {"queue": "a", "x": 1}
        assert asked == [("t", (1,), {"k": 2}, {"x": 1}, "task")]

    def test_an_unknown_queue_is_refused(self):
        routes = router({"t": "nowhere"}, queues=None)
        routes.queues.create_missing = False

        with pytest.raises(QueueNotFound, match="Queue 'nowhere' missing from task_queues"):
            routes.route({}, "t")

    def test_an_unknown_queue_is_added_if_the_router_may(self):
        routes = router({"t": "new"}, create_missing=True)
        routes.queues.create_missing = False

        assert routes.route({}, "t")["queue"].name == "new"
        assert "new" in routes.queues

    def test_an_empty_answer_is_none(self):
        assert named(router([lambda *args, **kwargs: {}]).route({}, "t")) == {"queue": "default"}

    def test_only_maps_give_answers_that_can_be_kept(self):
        assert router({"t": "a"}).is_static
        assert not router([{"t": "a"}, lambda *args, **kwargs: None]).is_static

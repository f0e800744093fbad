"""``app.conf``: layers, spellings, changes, checks, and what it shows."""

from __future__ import annotations

import copy
import pickle
import types
import warnings

import pytest

from celery import Celery
from celery.app.settings.table import OURS
from celery.app.utils import Settings, detect_settings, filter_hidden_settings, sanitize_url
from celery.exceptions import CDeprecationWarning, CeleryWarning, ImproperlyConfigured


def app_with(source=None, namespace=None, **settings):
    app = Celery("test", set_as_current=False, fixups=[], **settings)
    if source is not None:
        app.config_from_object(source, namespace=namespace)
    return app


def conf_of(source, namespace=None, **settings):
    return app_with(source, namespace, **settings).conf


# -- layers


def test_assignments_stand_above_the_object_and_the_object_above_defaults():
    conf = conf_of({"task_serializer": "yaml", "result_serializer": "yaml"})
    conf.task_serializer = "pickle"

    assert (conf.task_serializer, conf.result_serializer, conf.event_serializer) == ("pickle", "yaml", "json")


def test_what_is_assigned_before_loading_survives_loading():
    app = Celery("test", set_as_current=False, fixups=[])
    app.conf.task_serializer = "yaml"
    app.conf.update(result_serializer="yaml")
    held = app.conf
    assert not app.configured

    app.config_from_object({"task_serializer": "json", "event_serializer": "pickle"})

    assert (held.task_serializer, held.result_serializer, held.event_serializer) == ("yaml", "yaml", "pickle")
    assert app.conf is held
    assert app.configured


def test_arguments_of_the_app_stand_above_the_object():
    app = Celery(
        "test",
        broker="redis://argument//",
        set_as_current=False,
        fixups=[],
        changes={"timezone": "UTC"},
        task_protocol=1,
    )
    app.config_from_object({"broker_url": "redis://object//", "timezone": "Europe/Berlin", "task_protocol": 2})

    assert (app.conf.broker_url, app.conf.timezone, app.conf.task_protocol) == ("redis://argument//", "UTC", 1)


def test_added_defaults_stand_above_the_object_and_may_be_made_late():
    app = app_with({"task_serializer": "yaml"})
    app.add_defaults(lambda: {"my_own": 1})
    assert not app.configured
    app.conf.task_serializer  # loads
    app.add_defaults({"my_other": 2, "task_serializer": "pickle"})

    assert (app.conf.my_own, app.conf.my_other, app.conf.task_serializer) == (1, 2, "pickle")


@pytest.mark.parametrize(
    ("variable", "setting"),
    [
        ("CELERY_BROKER_URL", "broker_url"),
        ("CELERY_BROKER_READ_URL", "broker_read_url"),
        ("CELERY_BROKER_WRITE_URL", "broker_write_url"),
        ("CELERY_RESULT_BACKEND", "result_backend"),
    ],
)
def test_environment_variables_stand_above_everything(monkeypatch, variable, setting):
    conf = conf_of({setting: "redis://object//"})
    conf[setting] = "redis://assigned//"
    assert getattr(conf, setting) == "redis://assigned//"

    monkeypatch.setenv(variable, "redis://environment//")

    assert getattr(conf, setting) == "redis://environment//"


def test_read_and_write_url_fall_back_to_the_broker_url():
    conf = conf_of({"broker_url": "redis://a//", "broker_read_url": "redis://b//"})

    assert (conf.broker_read_url, conf.broker_write_url) == ("redis://b//", "redis://a//")
    assert conf_of({"broker_host": "h"}).broker_url == "h"


def test_exchange_and_routing_key_fall_back_to_the_queue():
    conf = conf_of({"task_default_queue": "q"})

    assert (conf.task_default_exchange, conf.task_default_routing_key) == ("q", "q")


def test_a_django_projects_time_zone_counts():
    settings = types.SimpleNamespace(TIME_ZONE="Europe/Paris")

    assert conf_of(settings, namespace="CELERY").timezone == "Europe/Paris"


# -- spellings


def test_an_old_name_sets_the_setting_of_the_new_name():
    conf = conf_of({"CELERYD_CONCURRENCY": 3})

    assert conf.worker_concurrency == conf["CELERYD_CONCURRENCY"] == conf.CELERYD_CONCURRENCY == 3
    assert conf.deprecated_settings == {"CELERYD_CONCURRENCY"}
    with pytest.warns(CDeprecationWarning, match="CELERYD_CONCURRENCY.*worker_concurrency"):
        assert conf.maybe_warn_deprecated_settings()


@pytest.mark.parametrize("first", ["task_serializer", "CELERY_TASK_SERIALIZER"])
@pytest.mark.parametrize("second", ["task_serializer", "CELERY_TASK_SERIALIZER"])
def test_the_latest_assignment_wins_under_any_spelling(first, second):
    conf = conf_of({first: "yaml"})
    assert conf.task_serializer == "yaml"
    conf[first] = "pickle"
    conf[second] = "msgpack"

    assert conf.task_serializer == conf["CELERY_TASK_SERIALIZER"] == "msgpack"


def test_mixing_old_and_new_names_is_refused_with_a_table_of_renames():
    source = {"task_serializer": "json", "task_time_limit": 1, "CELERYD_CONCURRENCY": 1, "BROKER_URL": "x://"}
    with pytest.raises(ImproperlyConfigured) as caught:
        conf_of(source).task_serializer

    assert "CELERYD_CONCURRENCY  ->  worker_concurrency" in str(caught.value)
    assert "BROKER_URL           ->  broker_url" in str(caught.value)


def test_where_old_names_prevail_the_new_ones_are_told_to_change():
    with pytest.raises(ImproperlyConfigured, match="accept_content  ->  CELERY_ACCEPT_CONTENT"):
        conf_of({"accept_content": ["json"], "CELERY_ROUTES": {}, "CELERYD_CONCURRENCY": 1}).task_routes


def test_both_spellings_of_one_setting_are_no_mixing_and_the_new_one_counts():
    assert conf_of({"task_serializer": "json", "CELERY_TASK_SERIALIZER": "yaml"}).task_serializer == "json"


def test_an_assignment_before_loading_does_not_count_as_mixing():
    assert conf_of({"BROKER_URL": "redis://h//"}, changes={"task_serializer": "yaml"}).broker_url == "redis://h//"
    assert conf_of({"BROKER_URL": "redis://h//"}, broker="redis://x//").broker_url == "redis://x//"


@pytest.mark.parametrize("namespace", ["CELERY", "CELERY_"])
def test_a_namespace_is_a_prefix_in_upper_case(namespace):
    conf = conf_of({"CELERY_TASK_SERIALIZER": "yaml", "CELERY_MY_OWN": 1, "DEBUG": True}, namespace)

    assert (conf.task_serializer, conf.my_own) == ("yaml", 1)


def test_a_namespace_in_lower_case_is_a_prefix_in_lower_case():
    assert conf_of({"proj_task_serializer": "yaml"}, "proj").task_serializer == "yaml"


def test_old_names_and_names_without_the_prefix_count_in_a_namespace_too():
    conf = conf_of(
        {"CELERY_ROUTES": {"a": {}}, "CELERY_TASK_SERIALIZER": "yaml", "BROKER_URL": "redis://h//"}, "CELERY"
    )

    assert (conf.task_routes, conf.broker_url) == ({"a": {}}, "redis://h//")


def test_an_unknown_name_is_no_attribute_and_no_key():
    conf = conf_of({})

    assert conf.get("nope", 3) == 3
    assert "nope" not in conf
    with pytest.raises(KeyError):
        conf["nope"]
    with pytest.raises(AttributeError) as caught:
        conf.task_serializzer
    assert caught.value.name == "task_serializzer"
    assert "task_serializer" in dir(conf)  # of which Python makes "did you mean"


# -- changes are seen, and told of by the version


def test_a_read_is_remembered_until_something_changes():
    conf = conf_of({})
    conf.finalize()
    assert conf.task_serializer == "json"
    version = conf.version
    assert "task_serializer" in vars(conf)
    conf.task_serializer
    assert conf.version == version

    conf.result_serializer = "yaml"

    assert "task_serializer" not in vars(conf)
    assert conf.version != version


@pytest.mark.parametrize(
    "change",
    [
        lambda conf: setattr(conf, "task_protocol", 1),
        lambda conf: conf.__setitem__("task_protocol", 1),
        lambda conf: conf.update(task_protocol=1),
        lambda conf: conf.update({"task_protocol": 1}),
        lambda conf: conf.update({"CELERY_TASK_PROTOCOL": 1}),
        lambda conf: conf.add_defaults({"task_protocol": 1}),
        lambda conf: conf.swap_with(Settings({"task_protocol": 1})),
    ],
)
def test_every_way_to_change_takes_effect_at_once(change):
    conf = conf_of({})
    assert conf.task_protocol == 2
    version = conf.version

    change(conf)

    assert conf.task_protocol == 1
    assert conf.version != version


def test_taking_an_assignment_back_brings_the_object_back():
    conf = conf_of({"task_protocol": 2})
    conf.task_protocol = 1
    assert conf.pop("task_protocol") == 1
    assert conf.task_protocol == 2
    conf.task_protocol = 1
    del conf["task_protocol"]
    assert conf.task_protocol == 2
    conf.task_protocol = 1
    del conf.task_protocol
    assert conf.task_protocol == 2
    conf.task_protocol = 1
    conf.clear()
    assert conf.task_protocol == 2
    with pytest.raises(KeyError):
        del conf["task_protocol"]


def test_setdefault_keeps_what_is_configured():
    conf = conf_of({"task_protocol": 1})

    assert conf.setdefault("task_protocol", 2) == 1
    assert conf.setdefault("my_own", 5) == conf.my_own == 5


class Parent:
    task_serializer = "json"


@pytest.mark.parametrize(
    "source",
    [
        {"task_serializer": "json"},
        types.ModuleType("config"),
        type("Config", (), {"task_serializer": "json"}),
        type("Child", (Parent,), {})(),
        types.SimpleNamespace(task_serializer="json"),
    ],
    ids=["dict", "module", "class", "inherited", "instance"],
)
def test_the_users_object_stays_live(source):
    app = app_with(source)
    assert app.conf.task_serializer == "json"
    version = app.conf.version

    if isinstance(source, dict):
        source["task_serializer"] = "yaml"
    else:
        source.task_serializer = "yaml"

    assert app.conf.task_serializer == "yaml"
    assert app.conf.version != version


def test_a_value_put_into_the_changes_behind_our_back_is_seen():
    app = app_with({})
    assert app.conf.task_serializer == "json"

    app.conf.changes["task_serializer"] = "yaml"

    assert app.conf.task_serializer == "yaml"


def test_lazy_settings_are_looked_through():
    """As Django has them: override_settings exchanges what the lazy object wraps."""

    class Lazy:
        def __init__(self, wrapped):
            self.__dict__["_wrapped"] = wrapped

        def __getattr__(self, name):
            value = self.__dict__[name] = getattr(self._wrapped, name)
            return value

    settings = Lazy(types.SimpleNamespace(CELERY_TASK_ALWAYS_EAGER=False))
    app = app_with(settings, namespace="CELERY")
    assert app.conf.task_always_eager is False
    version = app.conf.version
    app.conf.task_serializer
    assert app.conf.version == version

    settings.__dict__.clear()
    settings.__dict__["_wrapped"] = types.SimpleNamespace(CELERY_TASK_ALWAYS_EAGER=True)

    assert app.conf.task_always_eager is True


def test_a_whole_configuration_can_be_put_in():
    app = app_with({})
    app.conf = {"task_serializer": "yaml"}

    assert (app.conf.task_serializer, app.conf.result_serializer, app.configured) == ("yaml", "json", True)


def test_versions_of_two_apps_never_meet():
    one, other = conf_of({}), conf_of({})

    assert one.version != other.version


# -- checks


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "worker_concurrency",
            "many",
            "`worker_concurrency` must be a whole number ≥ 1, or `auto`, is 'many' (from app.conf).",
        ),
        ("broker_pool_limit", [1], "`broker_pool_limit` must be a whole number, is [1]"),
        ("task_time_limit", "soon", "`task_time_limit` must be a number, is 'soon'"),
        ("task_time_limit", -1, "`task_time_limit` must be a number that is not negative, is -1"),
        ("task_queues", "a,b", "`task_queues` must be a dictionary, is 'a,b'"),
        ("accept_content", 3, "`accept_content` must be a list, is 3"),
        ("beat_schedule", [3], "`beat_schedule` must be a dictionary of entries by name, is [3]"),
        ("task_protocol", 3, "`task_protocol` must be one of 1, 2, is 3"),
        ("redis_port", "redis://u:secret@h", "`redis_port` must be a whole number, is 'redis://u:********@h'"),
        ("database_table_names", "secret", "`database_table_names` must be a dictionary, is ********"),
    ],
)
def test_a_value_that_cannot_be_used_is_told_with_its_place(name, value, told):
    conf = conf_of({})
    conf[name] = value

    with pytest.raises(ImproperlyConfigured) as caught:
        getattr(conf, name)
    assert str(caught.value).startswith(told)
    with pytest.raises(ImproperlyConfigured):
        conf.validate()
    assert conf[name] == value  # by key nothing is judged


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("worker_concurrency", "auto"),
        ("worker_concurrency", None),
        ("broker_use_ssl", {"ca_certs": "x"}),
        ("redis_backend_use_ssl", True),
        ("task_queues", ["a"]),
        ("imports", "proj.tasks"),
        ("task_default_priority", 5),
        ("broker_heartbeat_checkrate", 2.5),
        ("timezone", "Europe/Berlin"),
        ("broker_failover_strategy", iter),
        ("worker_pool", object),
    ],
)
def test_what_celery_takes_is_taken(name, value):
    conf = conf_of({name: value})

    assert getattr(conf, name) == value
    conf.validate()


def test_numbers_given_as_text_become_numbers():
    conf = conf_of(
        {"worker_concurrency": "4", "task_time_limit": "1.5", "redis_port": "6379", "task_default_queue": "7"}
    )

    assert (conf.worker_concurrency, conf.task_time_limit, conf.redis_port) == (4, 1.5, 6379)
    assert conf.task_default_queue == "7"


def test_the_place_is_the_module_and_the_name_in_it(tmp_path, monkeypatch):
    module = types.ModuleType("settings")
    module.__file__ = str(tmp_path / "settings.py")
    module.CELERY_WORKER_CONCURRENCY = "many"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImproperlyConfigured, match=r"\(from CELERY_WORKER_CONCURRENCY in settings\.py\)\.$"):
        conf_of(module, "CELERY").worker_concurrency


def test_a_name_that_is_nearly_right_is_refused_by_validate():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CeleryWarning)
        conf = conf_of(
            {"task_serializzer": "json", "brokr_url": "x://", "my_own": 1, "beat_dburi": "x", "task_extra": 2}
        )
        with pytest.raises(ImproperlyConfigured) as caught:
            conf.validate()

    lines = str(caught.value).splitlines()
    assert [line.partition(" (from")[0] for line in lines] == [
        "Unknown setting `task_serializzer`. Did you mean `task_serializer`?",
        "Unknown setting `brokr_url`. Did you mean `broker_url`?",
    ]


def test_a_broker_url_that_cannot_be_understood_is_told_once_by_validate():
    with pytest.raises(ImproperlyConfigured) as caught:
        conf_of({"broker_url": "reddis://h"}).validate()

    assert str(caught.value).startswith("Unknown broker scheme `reddis` in `broker_url`. Did you mean `redis`?")
    assert "\n" not in str(caught.value)


def test_in_a_namespace_the_right_name_is_given_as_it_is_spelled_there():
    with pytest.warns(CeleryWarning, match="`CELERY_TASK_ROUTEZ`. Did you mean `CELERY_TASK_ROUTES`"):
        conf_of({"CELERY_TASK_ROUTEZ": {}, "DATABASEZ": {}}, "CELERY").task_routes


def test_a_nearly_right_name_beside_the_right_one_may_be_the_users_own():
    with pytest.warns(CeleryWarning, match="`broker_urls` beside `broker_url`, which is set, too: it has no effect"):
        conf_of({"broker_urls": ["a", "b"], "broker_url": "redis://a"}).validate()


# -- what is shown


SECRETS = {
    "broker_url": "redis://u:s3cret@h/1;redis://u:s3cr@t@h2/2",
    "broker_read_url": ["redis://u:s3cret@h/1", "redis://:s3cr/et@h"],
    "broker_password": "s3cret",
    "broker_transport_options": {"password": "s3cret", "sentinel_kwargs": {"password": "s3cret"}, "region": "eu"},
    "result_backend": "db+mysql://u:s3cret@h/1?ssl_password=s3cret",
    "cache_backend": "x://h?token=s3cret&a=1",
    "database_url": "mysql://u:s3cret@h",
    "my_own": "s3cret",
    "my_list": ["s3cret"],
    "mongodb_backend_settings": {"host": "mongodb://u:s3cret@h"},
    "task_serializer": "yaml",
    "my_switch": True,
}


@pytest.mark.parametrize(
    "show", [repr, str, Settings.humanize, Settings.table, lambda conf: conf.table(with_defaults=True)]
)
def test_no_secret_is_shown(show):
    text = str(show(conf_of(SECRETS)))

    assert "s3cr" not in text
    assert "yaml" in text


def test_the_table_has_what_is_configured_and_nothing_else():
    table = conf_of(SECRETS).table()

    assert {*table} == {*SECRETS}
    assert table["broker_url"] == "redis://u:********@h/1;redis://u:********@h2/2"
    assert table["broker_transport_options"]["region"] == "eu"
    assert table["my_switch"] is True
    assert conf_of(SECRETS).table(censored=False) == SECRETS
    assert len(conf_of({}).table(with_defaults=True)) == 207 + len(OURS)


def test_of_a_configuration_with_prefix_only_its_own_names_are_shown():
    conf = conf_of({"CELERY_TASK_SERIALIZER": "yaml", "SECRET_KEY": "s", "DEBUG": True}, "CELERY")

    assert conf.table() == {"CELERY_TASK_SERIALIZER": "yaml"}


def test_humanize_is_a_line_for_each_setting():
    assert (
        conf_of({"task_serializer": "yaml", "task_protocol": 1}).humanize()
        == "task_serializer: 'yaml'\ntask_protocol: 1"
    )


def test_the_url_tools_mask_passwords():
    assert sanitize_url("redis://u:p@h/1") == "redis://u:********@h/1"
    assert sanitize_url("redis://u:p@h/1", mask="**") == "redis://u:**@h/1"
    assert sanitize_url("redis://h/1") == "redis://h/1"
    assert filter_hidden_settings({"api_key": "x", "task_serializer": "json"}) == {
        "api_key": "********",
        "task_serializer": "json",
    }


# -- as a mapping


def test_it_is_a_mapping_of_all_layers():
    conf = conf_of({"my_own": 1})

    assert len(conf) == len(list(conf)) == 208 + len(OURS)
    assert dict(conf.items())["my_own"] == 1
    assert conf.first("task_routes", "my_own") == 1
    assert conf.get_by_parts("task", "serializer") == conf.find_value_for_key("serializer", "task") == "json"
    assert conf.find_option("serializer", "task").key == "serializer"
    assert conf.value_set_for("my_own")
    assert not conf.value_set_for("task_serializer")
    assert dict(conf.without_defaults().items()) == {"my_own": 1}


def test_a_copy_has_changes_of_its_own():
    conf = conf_of({"task_protocol": 1})
    other = copy.copy(conf)
    other.task_protocol = 2

    assert (conf.task_protocol, other.task_protocol) == (1, 2)


def test_a_pickle_holds_what_is_configured():
    conf = conf_of({"CELERY_TASK_SERIALIZER": "yaml"}, "CELERY")
    conf.task_protocol = 1

    restored = pickle.loads(pickle.dumps(conf))

    assert isinstance(restored, Settings)
    assert (restored.task_serializer, restored.task_protocol, restored.result_serializer) == ("yaml", 1, "json")


def test_detect_settings_serves_on_its_own():
    conf = detect_settings({"BROKER_URL": "x://"}, {"task_serializer": "yaml"}, ignore_keys={"task_serializer"})

    assert (conf.broker_url, conf.task_serializer, conf.deprecated_settings) == ("x://", "yaml", {"BROKER_URL"})
    assert conf.finalize() is conf


def test_observers_hear_of_updates():
    conf, heard = conf_of({}), []
    conf.bind_to(lambda *args, **kwargs: heard.append(kwargs))
    conf.update(task_protocol=1)

    assert heard == [{"task_protocol": 1}]

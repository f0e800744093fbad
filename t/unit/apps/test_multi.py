"""The command line of ``celery multi`` as nodes; the tables hold what Celery 5.7.0 makes of the same words."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from celery.apps.multi import (
    Cluster,
    MultiParser,
    NamespacedOptionParser,
    Node,
    build_expander,
    build_nodename,
    celery_exe,
    format_opt,
)
from celery.exceptions import CeleryWarning
from celery.utils.nodenames import gethostname

HOST = gethostname()


def nodes(*words: str, **kwargs) -> list[Node]:
    parser = NamespacedOptionParser(words)
    parser.parse()
    return list(MultiParser(**kwargs).parse(parser))


def options(*words: str) -> list[dict[str, str | None]]:
    """The nodes' options without those that all have."""
    ours = ("-n", "--pidfile", "--logfile", "--executable")
    return [{name: value for name, value in node.options.items() if name not in ours} for node in nodes(*words)]


def test_words_are_sorted_into_values_options_and_options_of_some():
    parser = NamespacedOptionParser(
        "a b@%h -c 3 -c:a 5 --x=3 --y:1,2=7 -E --flag -l:b DEBUG -Ofair -- -z q".split()  # noqa: SIM905
    )
    parser.parse()

    assert parser.values == ["a", "b@%h"]
    assert parser.options == {"-c": "3", "--x": "3", "-E": None, "--flag": None, "-Ofair": None}
    assert parser.namespaces == {"a": {"-c": "5"}, "1,2": {"--y": "7"}, "b": {"-l": "DEBUG"}}
    assert parser.passthrough == "-- -z q"
    assert parser.optmerge("a")["-c"] == "5"
    assert parser.optmerge("a", {"-c": "9", "-E": None}) == {"-c": "5", "-E": None}


def test_a_flag_takes_no_value_and_a_long_option_does_where_the_parser_knows_it():
    table = {"-E": False, "--workdir": True}
    parser = NamespacedOptionParser(["-E", "a", "--workdir", "/srv", "b"], takes_value=table.get)
    parser.parse()

    assert parser.values == ["a", "b"]
    assert parser.options == {"-E": None, "--workdir": "/srv"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["3"], [f"celery{index}@{HOST}" for index in (1, 2, 3)]),
        (["0"], []),
        (["a", "b@%h", "c@d"], [f"a@{HOST}", f"b@{HOST}", "c@d"]),
        (["2", "--range-prefix=w", "-n", "h.example.com"], ["w1@h.example.com", "w2@h.example.com"]),
        (["a", "--prefix=x", "--suffix=foo.com"], ["xa@foo.com"]),
        (["2", '--suffix=""'], ["celery1@", "celery2@"]),
        (["1-3"], [f"1-3@{HOST}"]),
    ],
)
def test_names_of_nodes(words, names):
    assert [node.name for node in nodes(*words)] == names


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("2 -c 3", [{"-c": "3"}, {"-c": "3"}]),
        ("a b -c 3 -c:a 10", [{"-c": "10"}, {"-c": "3"}]),
        ("3 -c 3 -c:1 10", [{"-c": "10"}, {"-c": "3"}, {"-c": "3"}]),
        ("4 -c:2-3 1", [{}, {"-c": "1"}, {"-c": "1"}, {}]),
        ("2 -c:1-9 1", [{"-c": "1"}, {"-c": "1"}]),
        ("a b c -Q:a,3 q", [{"-Q": "q"}, {}, {"-Q": "q"}]),
    ],
)
def test_options_for_some_nodes(words, expected):
    assert options(*words.split()) == expected


@pytest.mark.parametrize("words", ["2 -c:3 1", "a b -c:3 1"])
def test_an_option_for_a_number_that_no_node_has_is_refused(words):
    with pytest.raises(KeyError, match="There is no node"):
        nodes(*words.split())


@pytest.mark.parametrize("words", ["a -Q:a x -c:zz 1", "a -Q:a x -c:1-2 1", "a -Q:a,zz x"])
def test_an_option_for_a_node_that_is_not_named_this_time_is_left_out_with_a_warning(words):
    with pytest.warns(CeleryWarning, match="No node '(zz|1-2)' among a"):
        assert options(*words.split()) == [{"-Q": "x"}]


def test_the_host_of_names_may_be_a_template():
    assert [node.name for node in nodes("2", "-n", "%h.x")] == [f"celery{n}@{gethostname()}.x" for n in (1, 2)]


def test_the_command_line_of_a_node():
    (node,) = nodes("a@h", "-A", "proj", "-l", "INFO", "--broker=redis://u:p%2F@h", "--append=zz", "--", "x=1")

    assert node.argv_with_executable == (
        sys.executable,
        "-m celery -A proj --broker=redis://u:p%2F@h worker --detach",
        "-l INFO",
        "-n a@h",
        "--pidfile=/var/run/celery/a.pid",
        "--logfile=/var/log/celery/a%I.log",
        f"--executable={sys.executable}",
        "-- x=1",
        "zz",
    )
    assert node.prepare_argv(["-c 3", "-Q 'a b'"], "/usr/bin/python") == ["/usr/bin/python", "-c", "3", "-Q", "a b"]


def test_small_pieces():
    assert celery_exe("worker", "--detach") == "celery worker --detach"
    assert build_nodename("a", "p", "s") == ("a", "pa@s", "s")
    assert build_nodename("a@b", "p", "s") == ("a", "a@b", "b")
    assert [format_opt("-c", 3), format_opt("-E", None), format_opt("--x", "y")] == ["-c 3", "-E", "--x=y"]
    assert build_expander("a@b", "a", "b")("%n %h %d %p %N %i %I %%") == "a a@b b a@b a %i %I %"
    node = Node.from_kwargs("a@b", c=3, app="x", E=True, without_gossip=None)
    assert node.argv[:3] == ("-m celery --app=x worker --detach", "-c 3", "-E")
    assert node.getopt("--concurrency", "-c") == "3"


def test_a_node_without_a_pidfile_is_down_and_cannot_be_signalled(tmp_path):
    node = Node("a@b", options={"--pidfile": str(tmp_path / "%n.pid")})
    told: list[Node] = []

    assert not node.alive()
    assert node.send(15, told.append) is False
    assert told == [node]


def test_a_number_that_another_process_got_since_is_no_node(tmp_path):
    file = tmp_path / "a.pid"
    other = subprocess.Popen(["sleep", "60"])
    try:
        file.write_text(f"{other.pid}\n")
        node = Node("a@b", options={"--pidfile": str(file)})
        assert node.pid == other.pid  # written after that process began: it may be the one
        os.utime(file, (1, 1))
        assert node.pid is None
    finally:
        other.kill()
        other.wait()


def test_statuses_of_programs_are_told(tmp_path):
    told: list[tuple] = []
    files = {"--pidfile": f"{tmp_path}/run/%n.pid", "--logfile": f"{tmp_path}/log/%n.log"}
    node = Node("a@b", options={**files, "--executable": "/bin/false"})
    cluster = Cluster(
        [node],
        on_child_failure=lambda node, status: told.append((node.name, status)),
        on_node_status=lambda node, status: told.append(("status", status)),
    )

    assert cluster.start() == [1]
    assert told == [("a@b", 1), ("status", 1)]
    assert node.handle_process_exit(-9, on_signalled=lambda node, signum: told.append(("signal", signum))) == 9
    assert told[-1] == ("signal", 9)
    assert (tmp_path / "run").is_dir()
    assert (tmp_path / "log").is_dir()
    assert cluster.find("a@b") is node
    with pytest.raises(KeyError):
        cluster.find("b@b")

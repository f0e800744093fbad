"""What users see when they err: one clear line with a way out, and the right status."""

from __future__ import annotations

import socket

import pytest

USAGE, CONFIG, FAILURE, UNAVAILABLE, OK = 2, 78, 1, 69, 0
SECRET = "c4n4ry"

PREPARE = f"""
import math, warnings
warnings.simplefilter("always")
warnings.formatwarning = lambda message, category, *rest: f"{{category.__name__}}: {{message}}\\n"
from celery import Celery, chain, chord
app = Celery("rows", broker="memory://u:{SECRET}@localhost//", backend="cache+memory://")
plain = Celery("plain", broker="memory://", set_as_current=False)
def conf(**settings):
    app = Celery("c", set_as_current=False)
    app.conf.update(settings)
    return app
@app.task(name="add")
def add(x, y=1): return x + y
@plain.task(name="forgets")
def forgets(x): return x
def dup():
    app = Celery("d", set_as_current=False)
    app.task(name="dup")(lambda: 1)
    app.task(name="dup")(lambda: 2)
    app.finalize()
def itself():
    steps = chain(add.s(1), add.s(2))
    steps.tasks[1].options["link"] = [steps]
    return steps.apply_async()
"""

# row, words of the command line, status, first line
COMMANDS = [
    ("2", "-A nosuch worker", USAGE, r"Error: .*[Nn]o module (named )?.nosuch. \(searched: .*\)"),
    ("2", "-A proj:nosuch worker", USAGE, r"Error: .*Module `proj` has no `nosuch`; it has apps: `app`\."),
    ("2", "-A empty worker", USAGE, r"Error: .*Module `empty` has no app: give one as `empty:NAME`"),
    ("2", "-A empty:x worker", USAGE, r"Error: .*`empty:x` is no app; it is of the class `int`\."),
    ("2", "--config nosuch report", USAGE, r"Error: .*'--config': No module `nosuch` \(searched: .*\)"),
    ("3", "--config broken report", CONFIG, r"Error: broken\.py line 2 failed on import: NameError: .*undefined_name"),
    ("3", "-A broken worker", USAGE, r"Error: .*broken\.py line 2 failed on import: NameError: .*undefined_name"),
    ("3", "-A misread worker", USAGE, r"Error: .* misread\.py line 2 failed on import: FileNotFoundError"),
    ("3", "-A imports worker", FAILURE, r"Error: ModuleNotFoundError: .*nosuch_at_all. \(needy\.py line 2\)"),
    ("3", "-A syntax worker", USAGE, r"Error: .*syntax\.py line 1 failed on import: SyntaxError"),
    ("3", "-A needs worker", USAGE, r"Error: .*needs\.py line 1 failed on import: ModuleNotFoundError: .*nosuch"),
    (
        "4",
        f"-A proj -b reddis://:{SECRET}@localhost/ worker",
        CONFIG,
        r"Error: Unknown broker scheme `reddis` in `broker_url`.* Did you mean `redis`\? Known: amqp",
    ),
    (
        "5",
        f"-A proj -b redis://:{SECRET}@localhost:abc/0 worker",
        CONFIG,
        r"Error: `broker_url`.*redis://:\*+@localhost:abc/0\): the port is `abc`",
    ),
    (
        "5",
        f"-A proj -b redis://:se#{SECRET}@localhost:6379/0 worker",
        CONFIG,
        r"Error: `broker_url`.* must be percent-encoded",
    ),
    (
        "8",
        "-A unknown worker",
        CONFIG,
        r"(CeleryWarning|Error): Unknown setting `task_serializzer`. Did you mean `task_serializer`\?",
    ),
    ("9", "-A many worker", CONFIG, r"Error: `worker_concurrency` must be a whole number ≥ 1.*'many'"),
    ("9", "-A mixed worker", CONFIG, r"Error: Old and new setting names are mixed"),
    ("9", "-A proj worker -- worker.concurrency=many", CONFIG, r"Error: `worker_concurrency` must be .*'many'"),
    ("8", "-A proj worker -- worker.prefetch_multiplir=2", USAGE, r"Error: .*Unknown setting"),
    ("10", "-A proj worker -c 0", USAGE, r"Error: .*--concurrency must be >= 1, or `auto`"),
    ("10", "-A proj worker -c many", USAGE, r"Error: .*--concurrency must be >= 1, or `auto`"),
    ("11", "-A proj worker --autoscale=a,b", USAGE, r"Error: .*--autoscale wants MAX,MIN as numbers, got `a,b`\."),
    ("11", "-A proj worker --autoscale=1,2,3", USAGE, r"Error: .*--autoscale wants MAX,MIN"),
    (
        "12",
        "-A proj worker --concurency=3",
        USAGE,
        r"Error: No such option.*--concurency.* Did you mean .*--concurrency",
    ),
    ("12", "-A proj wroker", USAGE, r"Error: No such command 'wroker'\. Did you mean `worker`"),
    ("12", "-A proj worker -l INFOO", USAGE, r"Error: Invalid value for '-l'.*'INFOO' is not one of 'DEBUG'"),
    ("12", "-A proj worker -P prefrok", USAGE, r"Error: Invalid value for '-P'.*'prefrok' is not one of 'prefork'"),
    ("12", "-A proj worker -P no.such.pool:Pool", USAGE, r"Error: Invalid value for '-P'.*no\.such\.pool"),
    ("12", "-A proj inspect pingg", USAGE, r"Error: Command pingg not recognized\. Did you mean `ping`"),
    ("12", "-A proj inspect rate_limit", USAGE, r"Error: .*It is a command of `celery control`"),
    ("12", "-A proj control time_limit add x", USAGE, r"Error: celery control time_limit: soft cannot be 'x'"),
    ("13", "-A proj worker -Q a;c", USAGE, r"Error: .*Queue name `a;c`"),
    ("13", ["-A", "proj", "worker", "-Q", "a b"], USAGE, r"Error: .*Queue name `a b` has a space"),
    ("13", "-A proj worker -X zzz", CONFIG, r"Error: -X zzz: this queue is not consumed\. Consumed are: celery"),
    ("14", "-A proj worker -f /no/such.log", CONFIG, r"Error: Cannot write the log file /no/such\.log: no such dir"),
    ("14", "-A proj worker --pidfile /no/p.pid", CONFIG, r"Error: Cannot write the pidfile /no/p\.pid: no such dir"),
    ("14", "-A proj worker -D --pidfile /no/p.pid", CONFIG, r"Error: Cannot write the pidfile /no/p\.pid: no such dir"),
    ("14", "-A proj worker -D -f /no/such.log", CONFIG, r"Error: Cannot write the log file /no/such\.log: no such dir"),
    ("14", "-A proj worker --pidfile /tmp", CONFIG, r"Error: Cannot write the pidfile /tmp: it is a directory"),
    ("14", "-A proj worker -S /no/state", CONFIG, r"Error: Cannot write the state file /no/state: no such directory"),
    ("14", "-A proj worker -D --executable /no/python", CONFIG, r"Error: --executable: there is no program /no/python"),
    ("14", "-A proj worker --uid nobodyatall", CONFIG, r"Error: User does not exist: nobodyatall"),
    ("14", "-A proj worker --gid nobodyatall", CONFIG, r"Error: Group does not exist: nobodyatall"),
    ("14", "-A proj worker --umask 999", CONFIG, r"Error: The umask must be an octal number"),
    ("14", "-A proj --workdir /no/dir report", USAGE, r"Error: .*cannot work in /no/dir: No such file"),
    ("16", ["-A", "proj", "call", "proj.add", "-a", "[1,"], USAGE, r"Error: .*'\[1,' is no JSON"),
    ("16", ["-A", "proj", "call", "proj.add", "-a", "{}"], USAGE, r"Error: .*'\{\}' is no JSON array"),
    (
        "16",
        "-A proj call proj.add -a [1,2,3]",
        OK,
        r"Warning: add\(\) takes .* arguments but 3 were given; sent anyway",
    ),
    ("16", "-A proj call proj.add -a [1,2,3] --strict", USAGE, r"Error: add\(\) takes .* but 3 were given"),
    (
        "17",
        "-A proj call proj.ad",
        OK,
        r"Warning: no task of the name `proj\.ad` here \(3 known, nearest `proj\.add`\)",
    ),
    ("17", "-A proj call proj.ad --strict", USAGE, r"Error: There is no task of the name `proj\.ad` here"),
    ("18", "-A proj call proj.add -a [1,2] --eta tomorrow", USAGE, r"Error: .*'tomorrow' is no ISO 8601 time"),
    ("18", "-A proj worker --time-limit 3 --soft-time-limit 4", USAGE, r"Error: --soft-time-limit \(4\) must be below"),
    ("18", "-A proj worker --time-limit=-1", USAGE, r"Error: .*--time-limit.*must not be negative"),
    (
        "19",
        "-A proj call proj.add -a [1,2] --countdown nan",
        USAGE,
        r"Error: `countdown` must be a number of seconds, got nan",
    ),
    (
        "20",
        "-A proj call proj.add -a [1,2] --serializer jsn",
        USAGE,
        r"Error: No encoder installed for jsn\. Known .*json",
    ),
    ("23", "-A nostore result 123", CONFIG, r"Error: `celery result` needs `result_backend`, which is not set"),
    ("24", "-A proj result 123 --timeout 0.1", FAILURE, r"Error: Task 123 has no result after 0\.1 s"),
    ("24", "-A proj result 123 -t nosuch", USAGE, r"Error: --task: there is no task of the name `nosuch`"),
    (
        "24",
        "-A away result 123",
        UNAVAILABLE,
        r"Error: Cannot read the result store redis://:\*\*@127\.0\.0\.1:1/0 \(.*[Cc]onnection refused\)\. `result_backend`",
    ),
    ("25", "-A atlantis worker", CONFIG, r"Error: `timezone` must be the name of a time zone \(is `tzdata` .*Atlantis"),
    (
        "27",
        f"-A proj --result-backend nosuch://:{SECRET}@x worker",
        CONFIG,
        r"(Error: )?Unknown result backend `nosuch`\. Known: ",
    ),
    ("27", "-A proj --result-backend nosuch:// result 1", CONFIG, r"Error: Unknown result backend `nosuch`\. Known: "),
    ("-", "-A proj inspect ping -t 0.1", UNAVAILABLE, r"Error: No nodes replied within time constraint"),
    ("-", "-A proj control heartbeat -t 0.1", UNAVAILABLE, r"Error: No nodes replied within time constraint"),
    ("-", "-A proj status -t 0.1", UNAVAILABLE, r"Error: No nodes replied within time constraint"),
    ("-", "-A proj events", USAGE, r"Error: The monitor needs a terminal; --dump prints each event"),
    ("-", "-A proj events -c no.such.Cam", USAGE, r"Error: --camera: there is no class no\.such\.Cam"),
]

MODULES = {
    "empty.py": "x = 1\n",
    "broken.py": "import os\nx = undefined_name\n",
    "needy.py": "import os\nimport nosuch_at_all\n",
    "imports.py": "from celery import Celery\napp = Celery('i', broker='memory://', include=['needy'])\n",
    "misread.py": "import pathlib\nsettings = pathlib.Path('nosuch').read_text()\n",
    "syntax.py": "def\n",
    "needs.py": "import nosuch\n",
    "unknown.py": "from proj import app\napp.conf.task_serializzer = 'json'\n",
    "both.py": "from proj import app\napp.conf.update(broker_url='memory://', brokr_url='redis://')\n",
    "many.py": "from proj import app\napp.conf.worker_concurrency = 'many'\n",
    "mixed.py": "from proj import app\napp.conf.update(worker_concurrency=1, CELERY_TASK_SERIALIZER='json')\n",
    "nostore.py": "from celery import Celery\napp = Celery(broker='memory://')\n",
    "away.py": "from celery import Celery\n"
    f"app = Celery(broker='memory://', backend='redis://:{SECRET}@127.0.0.1:1/0')\n"
    "app.conf.result_backend_transport_options = {'retry_policy': {'max_retries': 0}}\n",
    "atlantis.py": "from proj import app\napp.conf.timezone = 'Europe/Atlantis'\n",
}

# row, expression, error's class (or None), line of the error or the warning
CODE = [
    ("8", "conf(task_serializzer='json').conf.validate()", "ImproperlyConfigured", r"Did you mean `task_serializer`\?"),
    (
        "8",
        "conf(brokr_url='redis://', broker_url='memory://').conf.validate()",
        None,
        r"CeleryWarning: Unknown setting `brokr_url` beside `broker_url`, which is set, too: it has no effect",
    ),
    ("9", "conf(worker_concurrency='many').conf.worker_concurrency", "Misconfigured", r"must be a whole number ≥ 1"),
    (
        "15",
        "add.delay(1, {1})",
        "EncodeError",
        r"add\(\) argument 2 \(`y`\): a value of type `set` cannot be sent as json",
    ),
    ("16", "add.delay(1, 2, 3)", "TypeError", r"add\(\) takes from 1 to 2 positional arguments but 3 were given"),
    ("18", "add.apply_async((1,), countdown=-5)", None, ""),
    ("18", "add.apply_async((1,), expires=-1)", None, ""),
    ("18", "add.apply_async((1,), eta='tomorrow')", "ValueError", r"`eta` must be a datetime.*not 'tomorrow'"),
    ("18", "add.apply_async((1,), priority='high')", "TypeError", r"`priority` must be a whole number, not 'high'"),
    ("18", "add.apply_async((1,), soft_time_limit=5, time_limit=3)", None, r"CeleryWarning: `soft_time_limit` \(5 s\)"),
    (
        "18",
        "add.apply_async((1,), quue='x')",
        None,
        r"CeleryWarning: `quue` is not an option .* did you mean `queue`\?",
    ),
    ("19", "add.apply_async((1,), countdown='5')", "TypeError", r"`countdown` must be a number of seconds, not '5'"),
    ("19", "add.apply_async((1,), countdown=math.nan)", "ValueError", r"`countdown` must be .* got nan"),
    ("19", "add.apply_async((1,), countdown=math.inf)", "ValueError", r"`countdown` must be .* got inf"),
    ("19", "add.apply_async((1,), countdown=1e12)", "ValueError", r"`countdown` must be .*\(up to about 10 years\)"),
    ("20", "add.apply_async((1,), compression='zippp')", "ValueError", r"Unknown compression 'zippp'. Known: .*gzip"),
    (
        "20",
        "add.apply_async((1,), serializer='jsn')",
        "SerializerNotInstalled",
        r"No encoder installed for jsn\. Known",
    ),
    ("22", "itself()", "ValueError", r"The signature contains itself: .*add"),
    (
        "23",
        "forgets.delay(1).get(timeout=1)",
        "NotImplementedError",
        r"No result backend is configured.*set result_backend",
    ),
    ("23", "chord([forgets.s(1)], forgets.s()).delay()", "NotImplementedError", r"chords requires a result backend"),
    ("24", "print(app.AsyncResult('nope').state)", None, "PENDING"),
    ("25", "conf(timezone='Europe/Atlantis').timezone", "Misconfigured", r"`timezone` must be .*`tzdata` installed"),
    (
        "26",
        "dup()",
        None,
        r"Warning: Task name 'dup' is defined twice: .*The first one is kept",
    ),
    ("27", "conf(result_backend='nosuch://').backend", "ImproperlyConfigured", r"Unknown result backend `nosuch`"),
    ("-", "conf().conf.my_own = 1", None, ""),
]


@pytest.fixture(scope="module")
def project(shared_project):
    for name, text in MODULES.items():
        shared_project.write(name, text)
    return shared_project


def check_output(ran):
    assert "Traceback (most recent" not in ran.stdout + ran.stderr
    assert SECRET not in ran.stdout + ran.stderr


@pytest.mark.parametrize(("row", "words", "status", "line"), COMMANDS, ids=lambda value: str(value)[:40])
def test_a_command_that_is_wrong_says_so_in_one_line(project, matches, row, words, status, line):
    ran = project.celery(*(words.split() if isinstance(words, str) else words))

    assert (ran.status, bool(matches(line, ran.first_line))) == (status, True), ran.stderr
    check_output(ran)


@pytest.fixture(scope="module")
def answers(project):
    """What each line of code comes to; all in one process, for its start takes longest."""
    code = PREPARE + "import sys\n"
    for number, (_, expression, *_) in enumerate(CODE):
        code += f"print('== {number}', file=sys.stderr, flush=True)\ntry:\n    {expression}\n"
        code += "except Exception as error:\n    print(f'{type(error).__name__}: {error}', file=sys.stderr)\n"
    ran = project.python(code.replace("print(app.Async", "sys.stderr.write(app.Async"))
    assert ran.status == 0, ran.stderr
    check_output(ran)
    parts = ran.stderr.split("== ")[1:]
    return [part.partition("\n")[2] for part in parts]


@pytest.mark.parametrize("number", range(len(CODE)), ids=lambda number: f"{CODE[number][0]}-{CODE[number][1][:40]}")
def test_code_that_is_wrong_says_so_in_one_line(answers, matches, number):
    _, _, error, line = CODE[number]

    answer = answers[number]
    assert f"{error}: " in answer if error else "Error" not in answer
    assert len(answer.split("\n\n")[0].splitlines()) <= 2
    assert matches(f".*{line}", answer.splitlines()[0]) if line else not answer


def test_a_traceback_comes_with_debug_only(project):
    ran = project.celery("--debug", "-A", "many", "worker")

    assert "Traceback (most recent" in ran.stderr


def test_row_1_a_worker_without_an_app_warns_and_runs(project, tmp_path):
    address = f"memory://u:{SECRET}@localhost//"
    program = project.start("-b", address, "worker", "-P", "solo", "-l", "INFO", env={"PYTHONPATH": str(project.path)})

    program.send("SIGTERM")
    assert program.end() == 0
    assert SECRET not in program.output


def test_row_1_a_worker_without_an_app_and_without_configuration_says_what_is_missing(project, matches, closed_port):
    url = f"amqp://localhost:{closed_port}//"
    ran = project.celery("worker", "-P", "solo", "--broker-timeout", "0.1", env={"CELERY_BROKER_READ_URL": url})

    assert matches(r"No app\. Give one: -A module or -A module:name\.", ran.first_line)


def test_row_8_a_wrong_name_beside_the_right_one_is_told_when_the_worker_starts(project):
    program = project.start("-A", "both", "worker", "-P", "solo", "-l", "INFO", env={"PYTHONPATH": str(project.path)})
    program.send("SIGTERM")

    assert program.end() == 0
    assert "Unknown setting `brokr_url` beside `broker_url`, which is set, too" in program.output


def test_row_6_nobody_listens(project, matches, closed_port):
    url = f"redis://:{SECRET}@127.0.0.1:{closed_port}/0"
    ran = project.celery("-A", "proj", "-b", url, "worker", "-P", "solo", "--broker-timeout", "0.5")

    assert ran.status == UNAVAILABLE
    assert matches(
        rf".*consumer: Cannot connect to redis://:\*+@127\.0\.0\.1:{closed_port}/0: .*refused", ran.first_line
    )
    assert "--broker-timeout=SECONDS" in ran.stderr
    assert matches(
        rf".*CRITICAL.* Cannot reach redis at 127\.0\.0\.1:{closed_port} \(connection refused\)\. Given up",
        ran.stderr.splitlines()[-1],
    )
    check_output(ran)


@pytest.mark.parametrize(
    ("scheme", "words"), [("redis", "status"), ("amqp", "call proj.add -a [1]"), ("redis", "purge -f")]
)
def test_row_6_nobody_listens_to_a_client(project, matches, closed_port, scheme, words):
    ran = project.celery("-A", "proj", "-b", f"{scheme}://u:{SECRET}@127.0.0.1:{closed_port}//", *words.split())

    assert ran.status == UNAVAILABLE, ran.stderr
    assert matches(
        rf"Error: Cannot reach {scheme} at 127\.0\.0\.1:{closed_port} \(connection refused\)", ran.first_line
    )
    check_output(ran)


@pytest.mark.rabbitmq
@pytest.mark.parametrize(
    ("place", "reason"),
    [(f"nobody:{SECRET}@127.0.0.1//", "Login was refused"), ("guest:guest@127.0.0.1//nosuch", "vhost /nosuch not")],
)
@pytest.mark.parametrize("words", [["worker", "-P", "solo"], ["status"]])
def test_row_7_a_refused_login_is_not_tried_again(project, matches, words, place, reason):
    ran = project.celery("-A", "proj", "-b", f"amqp://{place}", *words)

    assert ran.status == CONFIG, ran.stderr
    assert matches(rf".*The broker at amqp://\w+:\*+@.* refused the login for user .*{reason}", ran.first_line)
    check_output(ran)


@pytest.mark.redis
@pytest.mark.parametrize("words", [["worker", "-P", "solo"], ["status"]])
def test_row_7_a_refused_password_is_not_tried_again(project, matches, words):
    ran = project.celery("-A", "proj", "-b", f"redis://nobody:{SECRET}@127.0.0.1/0", *words)

    assert ran.status == CONFIG, ran.stderr
    assert matches(r".*The broker at redis://nobody:\*+@.* refused the login for user `nobody`", ran.first_line)
    check_output(ran)


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

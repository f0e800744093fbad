"""All scenarios: importing this enters them."""

import beats  # noqa: F401
import canvas_scenarios  # noqa: F401
import client_scenarios  # noqa: F401
import connections  # noqa: F401
import fuzzing  # noqa: F401
import growing  # noqa: F401
import hung  # noqa: F401
import malformed  # noqa: F401
import matrix  # noqa: F401
import operations  # noqa: F401
import owed_scenarios  # noqa: F401
import pools  # noqa: F401
import rabbit_poison  # noqa: F401
import rabbit_scenarios  # noqa: F401
import redis_scenarios  # noqa: F401
import secret_scenarios  # noqa: F401
import security_scenarios  # noqa: F401
import sizes  # noqa: F401
import store_scenarios  # noqa: F401

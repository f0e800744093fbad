"""All scenarios: importing this enters them."""

import malformed  # noqa: F401
import matrix  # noqa: F401
import pools  # noqa: F401
import rabbit_scenarios  # noqa: F401
import redis_scenarios  # noqa: F401

"""`python -m strata.cli.demo verify|write PATH ...`: see child.py."""

import sys
from collections.abc import Callable

from strata.cli.demo import child

programs: dict[str, Callable[..., None]] = {"verify": child.verify, "write": child.write}
programs[sys.argv[1]](*sys.argv[2:])

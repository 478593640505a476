"""`python -m strata.cli` does what `strata` does."""

import sys

from strata.cli import main

sys.exit(main())

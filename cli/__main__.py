"""`python -P -m cli` is the command `headrace`."""

import sys

from cli.main import main

sys.exit(main())

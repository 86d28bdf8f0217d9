"""`python -m anymq`: the command `anymq`."""

import sys

from .cli import main

sys.exit(main())

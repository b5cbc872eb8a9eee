"""The command line: ``python -m helpers.homework``."""

import sys

from helpers.homework.run import main

sys.exit(main())

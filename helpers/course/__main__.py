"""The command line: ``python -m helpers.course``."""

import sys

from helpers.course.run import main

sys.exit(main())

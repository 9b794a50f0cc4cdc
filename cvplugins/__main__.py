"""``python -m cvplugins`` is the console command ``cvplugins``."""

import sys

from cvplugins.cli import main

sys.exit(main())

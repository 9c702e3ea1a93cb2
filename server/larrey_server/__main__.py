"""``python -m larrey_server`` is ``larrey``."""

import sys

from larrey_server.cli import main

sys.exit(main())

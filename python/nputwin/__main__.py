"""`python -m nputwin`."""

import sys

from nputwin._cli import main

sys.exit(main())

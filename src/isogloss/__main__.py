"""`python -m isogloss`, and `torchrun -m isogloss` for several processes."""

import sys

from isogloss.cli import main

sys.exit(main())

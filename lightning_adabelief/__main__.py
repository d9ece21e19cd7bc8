"""``python -m lightning_adabelief`` is ``adabelief``."""

import sys

from lightning_adabelief.cli.main import main

sys.exit(main())

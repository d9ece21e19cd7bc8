"""``python -m lightning_adabelief`` is ``adabelief``."""

import sys

from lightning_adabelief.cli.main import main
from lightning_adabelief.comparison.process import die_with_parent

die_with_parent()
sys.exit(main())

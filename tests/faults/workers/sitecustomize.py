"""Python imports this module at the start of each process of a run that ``strike.py`` started.

Worker processes import nothing of the program that starts them, so this is how their events get counted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if "--multiprocessing-fork" in sys.orig_argv:
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    import strike

    for counter in strike.counters(*os.environ[strike.POINT].split("\n"), ("worker",)):
        counter.watch()

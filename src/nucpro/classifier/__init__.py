"""The classifier of merged vectors: what it is, how it is trained, and how honestly it is judged.

Merged files come in from :mod:`nucpro.formats`; models and their cards go to :mod:`nucpro.prediction`.
The submodules import torch where they need it; this module does not.
"""

from __future__ import annotations

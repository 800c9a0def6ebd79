"""The classifier of merged vectors: the network, its training, and its evaluation.

Merged files come in from :mod:`nucpro.formats`; models and their cards go to :mod:`nucpro.prediction`.
The submodules import torch where they need it; this module does not.
"""

from __future__ import annotations

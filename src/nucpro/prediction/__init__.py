"""From sequences of unknown origin to scores: the classifier's other half.

FASTA or FASTQ comes in, with a classifier that ``nucpro train`` made; tables of scores go out.
"""

from __future__ import annotations

from nucpro.prediction.options import PredictionOptions
from nucpro.prediction.running import PredictionReport, predict

__all__ = ["PredictionOptions", "PredictionReport", "predict"]

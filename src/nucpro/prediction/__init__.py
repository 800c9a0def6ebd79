"""From sequences of unknown origin to scores: the classifier's other half.

FASTA or FASTQ comes in, with a classifier that ``nucpro train`` made; tables of scores go out.
"""

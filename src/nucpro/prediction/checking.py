"""Everything about a prediction that can be checked before a model is loaded or a file is touched.

Options come in, and what was found goes to :mod:`nucpro.prediction.running`. All problems are gathered and told at
once, since the next attempt may be hours away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nucpro.checkpoint import Stamp
from nucpro.engine import Engine
from nucpro.errors import FastaError, PreflightError
from nucpro.layout import name_problem
from nucpro.opening import is_pipe
from nucpro.prediction.contigs import InputFacts, inspect
from nucpro.prediction.models import Models, find_models
from nucpro.prediction.options import PredictionOptions
from nucpro.prediction.plot import plotting_problems
from nucpro.preflight import writing_problems

__all__ = ["Checked", "check"]

logger = logging.getLogger(__name__)

_ANY_LENGTH = 300
"""Length of chunks that the input is read with where no other is known: its problems do not depend on it."""


@dataclass(frozen=True)
class Checked:
    """A prediction that nothing speaks against.

    Parameters
    ----------
    options : PredictionOptions
        What was asked for.
    models : Models
        The classifier and its encoders, which are not loaded yet.
    facts : InputFacts
        What is in the input.
    length : int
        Bases of a full chunk.
    stamp : Stamp or None
        What tells whether the input was changed since.
    """

    options: PredictionOptions
    models: Models
    facts: InputFacts
    length: int
    stamp: Stamp | None


def check(options: PredictionOptions, engine: Engine, spool: Callable[[Path], Path]) -> Checked:
    """Read input and models, and try whether the output can be written.

    Parameters
    ----------
    options : PredictionOptions
        What was asked for.
    engine : Engine
        Where it will be done.
    spool : callable
        Gives a regular file with the content of a pipe, and any other name back; see :func:`nucpro.opening.spooled`.

    Raises
    ------
    PreflightError
        Names every problem.
    """
    models, problems = find_models(options)
    problems += engine.problems()
    length = options.length or (models.card.chunk_length if models else None)
    if models and length is None:
        problems.append(f"{options.model}: does not say the length of its chunks; give it with --length")
    problems += _output_problems(options) + plotting_problems(options.plots)
    if problems and is_pipe(options.input):
        # Who writes into a pipe may take hours.
        raise PreflightError(problems)
    try:
        options = replace(options, input=spool(options.input), output=options.folder)
        stamp = Stamp.of(options.input)
        facts = inspect(options.input, length or _ANY_LENGTH)
    except FastaError as error:
        raise PreflightError([*problems, str(error)]) from error
    problems += facts.problems
    if problems or models is None or length is None:
        raise PreflightError(problems)
    _warn_of_other_length(length, models)
    return Checked(options, models, facts, length, stamp)


def _output_problems(options: PredictionOptions) -> list[str]:
    too_long = name_problem(options.folder)
    if too_long:
        return [f"{options.folder}: {too_long}; name a folder with --output"]
    if options.folder.exists() and not options.folder.is_dir():
        return [f"{options.folder}: is a file; name a folder with --output"]
    return writing_problems([options.folder])


def _warn_of_other_length(length: int, models: Models) -> None:
    trained = models.card.chunk_length
    if trained is not None and length != trained:
        logger.warning(
            "Chunks of %d bases are scored by a classifier of chunks of %d: models of other lengths are other models",
            length,
            trained,
        )

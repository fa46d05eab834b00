"""From records to verdicts, tables, plots and a page: a pure function of ``results/<tier>`` and the
papers.

`load` and `load_claims` return the same numbers as pandas tables, for your own analysis. Importing this package does
not import pandas.
"""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


def load(path: "str | PathLike[str]") -> "DataFrame":
    """Return one row for each run and metric of a results folder (``results/mini``) or a publication.

    Columns: paper, method, address (``paper/method``), role, task, category, tier, seed, status, reason; metric,
    value, unit, direction (``higher`` or ``lower`` is better), scale; the data; ``cost_*`` (seconds, bytes, joules);
    device, CPU, threads, commit; fingerprints. A failed run has one row without a metric. Warns about records
    that cannot be read; raises UserError if the folder has none.
    """
    from replications.reporting import reading

    return reading.load(path)


def load_claims(path: "str | PathLike[str]") -> "DataFrame":
    """Return one row for each claim of a results folder or a publication: verdict, effect, interval, p-values.

    The claims are those of the folder's report, or all claims if it has no report. The columns are the fields of
    `replications.reporting.verdicts.Verdict`. Raises UserError if the folder has no record.
    """
    from replications.reporting import reading

    return reading.load_claims(path)

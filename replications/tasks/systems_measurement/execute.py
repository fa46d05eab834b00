"""A run: the row's function is called, seeded, and its statement judged."""

from replications.measurement.protocol import EFFORTS
from replications.tasks.run import Context, Evaluation
from replications.tasks.systems_measurement.rescore import identity_error


def execute(context: Context) -> Evaluation:
    """Measure the row; its metrics are the function's and ``identity_error``."""
    row = context.build("row", effort=EFFORTS[context.spec.tier])
    return Evaluation(
        row.metrics | {"identity_error": identity_error(row.found, row.stated)},
        category=row.category,
        curves=row.curves,
        extra=row.told,
        arrays=row.arrays | {"found": row.found, "stated": row.stated},
    )

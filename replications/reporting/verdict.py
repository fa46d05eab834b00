"""The verdict on a claim, with its evidence."""

from typing import Literal

from pydantic import BaseModel

from replications.reporting import labels
from replications.spec import on_test_scale

Word = Literal["reproduced", "contradicted", "inconclusive", "not tested"]


class Verdict(BaseModel):
    """The verdict on a claim, with its evidence. Effects have the sign of subject minus reference.

    `effect`, `interval` and `values` (the paired effects by seed or fold) are those of `seeds`, which are the last
    of `looks` complete looks; `waiting` are seeds with a record beyond it, and `waiting_values` their effects if
    both sides have one. `failed_seeds` failed on one side only. `p_looks` and `p_against_looks` are the p-values at
    each look, `p` and `p_against` the sequential ones (see statistics), which compare with 0.05. `reached` is the
    look that gave the raw verdict. `testable` says whether the tier can test the claim; `family` is the number of the
    paper's claims that it can test by sampling, for which Holm adjusts. `q` and `q_against` are
    adjusted over all papers by Benjamini and Hochberg: a second opinion, never the verdict.

    For an inconclusive claim, `needed` is the number of seeds that decides it with a probability of 80 % if the
    estimated effect and spread are true (None: more than 40, or more seeds do not help), `needed_look` the look
    with that many seeds, `needed_minutes` the cost of the further seeds of both sides.
    """

    paper: str
    claim: str
    statement: str
    where: str
    note: str
    subject: str
    subject_metric: str
    reference: str | None
    reference_metric: str | None
    expected: float | None
    metric_title: str
    unit: str
    decimals: int
    effect_kind: Literal["difference", "ratio"]
    direction: Literal["greater", "less", "equal"]
    smallest_effect: float
    reported_effect: float | None
    evidence: Literal["sampled", "exact"] = "sampled"
    effect: float | None = None
    interval: tuple[float, float] | None = None
    replication: Literal["seeds", "folds"] = "seeds"
    n: int = 0
    looks: int = 0
    seeds: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    waiting: tuple[int, ...] = ()
    waiting_values: tuple[float | None, ...] = ()
    failed_seeds: tuple[int, ...] = ()
    p_looks: tuple[float, ...] = ()
    p_against_looks: tuple[float, ...] = ()
    p: float | None = None
    p_against: float | None = None
    p_holm: float | None = None
    p_against_holm: float | None = None
    family: int = 0
    testable: bool = True
    q: float | None = None
    q_against: float | None = None
    detectable: float | None = None
    reached: int | None = None
    raw: Word = "not tested"
    adjusted: Word = "not tested"
    reason: str = ""
    needed: int | None = None
    needed_look: int | None = None
    needed_minutes: tuple[float, ...] = ()
    needed_unit: str = ""
    tier: str
    result: bool
    data: tuple[str, ...] = ()
    category: str | None = None
    deviations: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return f"{self.paper}/{self.claim}"

    @property
    def decided(self) -> bool:
        return self.adjusted in ("reproduced", "contradicted")

    @property
    def delta(self) -> float:
        """The smallest effect of interest on the scale of the test."""
        return on_test_scale(self.smallest_effect, self.effect_kind)

    @property
    def effect_text(self) -> str:
        """``+0.31 points``, ``×1.25``, or a dash if there is none."""
        if self.effect is None:
            return "–"
        return f"{labels.effect(self.effect, self.effect_kind, self.decimals)} {self.unit}".strip()

    @property
    def evidence_text(self) -> str:
        """``5 seeds``, ``10 folds``, or ``1 seed, checked, not sampled``; a dash where there is none."""
        if not self.n:
            return "–"
        text = f"{self.n} {self.replication if self.n > 1 else self.replication[:-1]}"
        return f"{text}, {labels.CHECKED}" if self.evidence == "exact" else text

    @property
    def by_share(self) -> str:
        """The raw verdict if it survives Benjamini and Hochberg's adjustment over all papers, else inconclusive; a
        dash if there is no p-value.
        """
        if self.q is None:
            return "–"
        q = {"reproduced": self.q, "contradicted": self.q_against}.get(self.raw, 1.0)
        return self.raw if q <= 0.05 else "inconclusive"

    @property
    def methods(self) -> tuple[str, ...]:
        """The subject and, if any, the reference, as ``paper/method``."""
        return tuple(filter(None, (self.subject, self.reference)))

    @property
    def open(self) -> bool:
        """Whether the claim was tested and is undecided, and more seeds can help."""
        waits = self.adjusted == "inconclusive" and self.p is not None
        return waits and self.replication == "seeds" and not self.failed_seeds

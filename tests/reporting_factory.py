"""Small made-up results to develop and test the report with: 14 face methods, one failed run, one missing
method.
"""

from types import SimpleNamespace

import numpy as np

from replications.records import (
    Cost,
    Curve,
    HistoryPoint,
    Provenance,
    RunRecord,
    ThroughputRecord,
    run_path,
    throughput_path,
    write_record,
)
from replications.spec import Claim, Method, Paper, Recipe, RunSpec, Side
from replications.tasks.base import Metric

TASK = SimpleNamespace(
    name="face_verification",
    title="Face verification",
    primary_metric="accuracy",
    metrics={
        "accuracy": Metric("Accuracy", "%", True, "mean over ten folds"),
        "accuracy_se": Metric("Standard error", "%", False, "of the mean over ten folds"),
        "auc": Metric("AUC", "", True, "area under the ROC curve", 4),
        "eer": Metric("EER", "%", False, "equal error rate"),
        "tar_far1e2": Metric("TAR at FAR 1e-2", "%", True, "true accepts at one false accept in 100"),
        "angle": Metric("Angle to the centre", "degrees", False, "between feature and class weight", 1),
    },
    rescore=lambda arrays: {"auc": auc(arrays["score"], arrays["same"])},
)
TASKS = {"face_verification": TASK}

# separability of the scores, angle, millions of parameters, MFLOPs, role
METHODS = {
    "arcface/arcface": (4.0, 28.1, 2.11, 95, "method"),
    "arcface/softmax": (2.9, 51.0, 2.10, 95, "method"),
    "arcface/margin_0.3": (3.8, 33.0, 2.11, 95, "ablation"),
    "arcface/margin_0.7": (3.85, 27.0, 2.11, 95, "ablation"),
    "cosface/cosface": (3.95, 30.4, 2.11, 95, "method"),
    "sphereface/sphereface": (3.5, 35.2, 2.11, 95, "method"),
    "normface/normface": (2.8, 44.9, 2.11, 95, "method"),
    "deepid/deepid": (2.6, 61.0, 1.25, 61, "method"),
    "deepid/one_patch": (1.9, 66.0, 0.35, 6, "ablation"),
    "deepid/conv4_only": (2.5, 62.0, 1.12, 60, "ablation"),
    "deepid/half_identities": (2.2, 64.0, 1.20, 61, "ablation"),
    "deepface/deepface": (2.3, 58.0, 4.80, 130, "method"),
    "deepface/shared": (2.25, 58.5, 1.40, 129, "ablation"),
    "lfw_protocol/eigenfaces": (0.9, 80.0, 0.0, 2, "method"),
}
MISSING = "deepface/shared"
FAILED = ("sphereface/sphereface", 2)


def _paper(key, title, author, year, role, claims) -> Paper:
    methods = {
        address.partition("/")[2]: Method(title=address.partition("/")[2], build="model:build", role=row[4])
        for address, row in METHODS.items()
        if address.startswith(f"{key}/")
    }
    bibtex = f"@inproceedings{{{key}{year},\n  title = {{{title}}},\n  author = {{{author}}}\n}}"
    return Paper(
        key=key,
        title=title,
        authors=(author,),
        venue="CVPR",
        year=year,
        bibtex=bibtex,
        role=role,
        task="face_verification",
        methods=methods,
        claims=tuple(claims),
    )


def claim(id, statement, subject, reference=None, **changes) -> Claim:
    metric, reference_metric = changes.pop("metric", "accuracy"), changes.pop("reference_metric", None)
    fields = {
        "where": "Table 2",
        "direction": "greater",
        "smallest_effect": 0.5,
        "tiers": ("mini", "standard", "paper"),
    }
    return Claim(
        id=id,
        statement=statement,
        subject=Side(method=subject, metric=metric),
        reference=reference and Side(method=reference, metric=reference_metric or metric),
        **{**fields, **changes},
    )


def papers() -> dict[str, Paper]:
    arcface = [
        claim("C1", "An additive angular margin beats an additive cosine margin.", "arcface/arcface",
              "cosface/cosface", smallest_effect=0.1, reported_effect=0.02, deviations=(1, 2)),
        claim("C2", "A margin beats plain softmax.", "arcface/arcface", "arcface/softmax",
              reported_effect=0.45, deviations=(1,)),
        claim("C3", "A margin of 0.5 is as good as one of 0.3.", "arcface/arcface", "arcface/margin_0.3",
              direction="equal", reported_effect=0.12, smallest_effect=2.0),
        claim("C4", "Without a margin, normalisation alone hurts.", "normface/normface", "arcface/softmax",
              direction="less", reported_effect=-0.52),
        claim("C5", "The margin tightens the angle to the class centre.", "arcface/arcface",
              "normface/normface", metric="angle", direction="less", smallest_effect=5,
              reported_effect=-29.97, deviations=(2,)),
        claim("C6", "Millions of images bring 99.83 %.", "arcface/arcface", expected=99.83, direction="equal",
              tiers=("paper",), smallest_effect=0.1),
    ]  # fmt: skip
    deepid = [
        claim("D3", "Several patches beat one.", "deepid/deepid", "deepid/one_patch", reported_effect=4.5,
              smallest_effect=1.0, deviations=(1,)),
        claim("D4", "Feeding both conv3 and conv4 beats conv4 alone.", "deepid/deepid", "deepid/conv4_only",
              reported_effect=0.7, smallest_effect=0.3),
        claim("D2", "More identities help.", "deepid/deepid", "deepid/half_identities", effect="ratio",
              smallest_effect=0.01, reported_effect=1.02),
    ]  # fmt: skip
    deepface = [claim("A3", "Locally connected layers help.", "deepface/deepface", MISSING)]
    lfw = [
        claim("P1", "Eigenfaces reach about 60 %.", "lfw_protocol/eigenfaces", expected=60.0,
              direction="equal", smallest_effect=8.0)
    ]  # fmt: skip
    return {
        "arcface": _paper("arcface", "ArcFace", "Deng", 2019, "replication", arcface),
        "cosface": _paper("cosface", "CosFace", "Wang", 2018, "replication", []),
        "sphereface": _paper("sphereface", "SphereFace", "Liu", 2017, "replication", []),
        "normface": _paper("normface", "NormFace", "Wang", 2017, "replication", []),
        "deepid": _paper("deepid", "DeepID", "Sun", 2014, "replication", deepid),
        "deepface": _paper("deepface", "DeepFace", "Taigman", 2014, "baseline", deepface),
        "lfw_protocol": _paper("lfw_protocol", "LFW", "Huang", 2007, "baseline", lfw),
    }


DEVIATIONS = {
    "arcface": {
        1: "IResNet-18 at half width instead of IResNet-50.",
        2: "Trained on procedural faces, not CASIA.",
    },
    "deepid": {1: "12 patches instead of 60."},
}


def provenance(**changes) -> Provenance:
    fields = {
        "created": "2025-01-02T03:04:05+00:00",
        "suite_version": "0.1.0",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "python": "3.11.9",
        "packages": {"torch": "2.13.0", "timm": "1.0.0", "numpy": "2.4.0"},
        "platform": "Linux x86_64",
        "device": "cpu",
        "device_kind": "cpu",
        "cpu": "Example CPU 3.0 GHz",
        "cpu_count": 8,
        "memory_gib": 16.0,
        "threads": 1,
        "deterministic": True,
    }
    return Provenance(**{**fields, **changes})


def auc(score: np.ndarray, same: np.ndarray) -> float:
    ranks = np.argsort(np.argsort(score)) + 1
    positive = int(same.sum())
    return float((ranks[same].sum() - positive * (positive + 1) / 2) / (positive * (len(score) - positive)))


def _roc(score: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-score)
    return np.cumsum(~same[order]) / (~same).sum(), np.cumsum(same[order]) / same.sum()


def spec(address: str, seed: int, tier: str = "mini") -> RunSpec:
    paper, _, method = address.partition("/")
    return RunSpec(
        paper=paper,
        method=method,
        tier=tier,
        seed=seed,
        task="face_verification",
        data={"train": "faces_mini", "test": "faces_mini"},
        build="model:build",
        options={},
        recipe=Recipe(batch_size=64, epochs=4, lr=0.1),
        task_options={},
        threads=1,
    )


def record(address: str, seed: int, tier: str = "mini", pairs: int = 1200) -> tuple[RunRecord, dict]:
    """A finished record and its arrays. Runs of one seed share the pairs and part of the noise."""
    separability, angle, millions, mflops, _ = METHODS[address]
    random = np.random.default_rng([seed, 7])
    own = np.random.default_rng([seed, sum(address.encode())])
    if address == "lfw_protocol/eigenfaces":  # nothing in it varies with the seed
        random, own = np.random.default_rng(1), np.random.default_rng(2)
    same = np.arange(pairs) % 2 == 0
    noise = 0.8 * random.standard_normal(pairs) + 0.6 * own.standard_normal(pairs)
    score = np.where(same, 0.5, -0.5) * (separability + 0.05 * own.standard_normal()) + noise
    folds = [float(100 * np.mean((part > 0) == truth)) for part, truth in
             zip(np.split(score, 10), np.split(same, 10), strict=True)]  # fmt: skip
    far, tar = _roc(score, same)
    metrics = {
        "accuracy": float(np.mean(folds)),
        "accuracy_se": float(np.std(folds, ddof=1) / np.sqrt(10)),
        "auc": auc(score, same),
        "eer": float(100 * far[np.argmin(np.abs(far - (1 - tar)))]),
        "tar_far1e2": float(100 * tar[far <= 0.01][-1]),
        "angle": angle + float(own.normal(0, 0.8)),
    }
    thin = np.unique(np.linspace(0, pairs - 1, 200).astype(int))
    history, final = [], 8.0 / separability
    for step in range(0, 401, 20):
        loss = final + 7 * np.exp(-step / 90) + own.normal(0, 0.1)
        point = {"stage": "train", "step": step, "epoch": step / 100}
        history.append(HistoryPoint(**point, split="train", values={"loss": float(loss)}))
        if step % 100 == 0:
            reached = 50 + (metrics["accuracy"] - 50) * (1 - np.exp(-step / 120)) + own.normal(0, 0.5)
            history.append(HistoryPoint(**point, split="validation", values={"accuracy": float(reached)}))
    seconds = 20 + 40 * mflops / 95 + own.uniform(0, 3)
    wrong = np.argsort(np.where(same, score, -score))[:16]
    run = RunRecord(
        status="finished",
        fingerprint=f"f{seed}{address}",
        code_fingerprint="c0de",
        data_fingerprint="da7a",
        spec=spec(address, seed, tier),
        data={"train": {"title": "procedural faces (mini)", "kind": "procedural"},
              "test": {"title": "procedural faces (mini)", "kind": "procedural"}},
        category="unrestricted, labelled outside data",
        metrics=metrics,
        groups={"accuracy": folds},
        curves={"roc": Curve(x_label="False accept rate", y_label="True accept rate",
                             x=far[thin].tolist(), y=tar[thin].tolist())},
        extra={"worst_pairs": [{"rows": [int(i) % 80, int(i) * 7 % 80], "score": float(score[i]),
                                "threshold": 0.0, "same": bool(same[i])} for i in wrong]},
        history=history,
        cost=Cost(train_seconds=seconds, total_seconds=seconds + 8, data_wait_seconds=0.01 * seconds,
                  steps=400, samples=25600, samples_per_second=25600 / seconds,
                  peak_memory_bytes=int(6e8 + 1e8 * millions),
                  parameters=int((millions + 0.26) * 1e6), model_parameters=int(millions * 1e6),
                  flops_per_sample=mflops * 1e6),
        provenance=provenance(),
    )  # fmt: skip
    return run, {"score": score, "same": same}


def failed(address: str, seed: int, tier: str = "mini", reason: str = "diverged") -> RunRecord:
    return RunRecord(
        status="failed",
        reason=reason,
        message="loss is nan at step 120",
        fingerprint="f",
        code_fingerprint="c0de",
        data_fingerprint="da7a",
        spec=spec(address, seed, tier),
        cost=Cost(total_seconds=12.0),
        provenance=provenance(),
    )


def throughput(address: str, tier: str = "mini", **changes) -> ThroughputRecord:
    paper, _, method = address.partition("/")
    rate = 4e4 / (METHODS[address][3] + 20)
    fields = {
        "status": "finished",
        "fingerprint": "f",
        "paper": paper,
        "method": method,
        "tier": tier,
        "task": "face_verification",
        "batch_size": 64,
        "precision": "float32",
        "train_step_seconds": [64 / rate] * 5,
        "inference_step_seconds": [16 / rate] * 5,
        "train_samples_per_second": rate,
        "inference_samples_per_second": 4 * rate,
        "peak_memory_bytes": 500_000_000,
        "provenance": provenance(),
    }
    return ThroughputRecord(**{**fields, **changes})


def write_results(results, tier: str = "mini", seeds: int = 3, pairs: int = 1200) -> None:
    """Write 13 methods' records below `results`, one of them with a diverged seed, and 12 throughput
    records.
    """
    for address in METHODS:
        if address == MISSING:
            continue
        paper, _, method = address.partition("/")
        for seed in range(seeds):
            path = run_path(results, paper, method, seed)
            if (address, seed) == FAILED:
                write_record(failed(address, seed, tier), path)
                continue
            run, arrays = record(address, seed, tier, pairs)
            write_record(run, path)
            np.savez(path.with_name("arrays.npz"), **arrays)
        if address != "lfw_protocol/eigenfaces":
            write_record(throughput(address, tier), throughput_path(results, paper, method))


def faces(images: int = 80, size: int = 48) -> dict[str, np.ndarray]:
    """Arrays of a prepared set: blobs with eyes."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:size, :size] / size
    pixels = np.zeros((images, size, size, 3), np.uint8)
    for image in pixels:
        image[:] = random.integers(0, 120, 3)
        cx, cy, w = 0.5 + random.normal(0, 0.03), 0.5 + random.normal(0, 0.03), 0.3 + random.normal(0, 0.02)
        image[((x - cx) / w) ** 2 + ((y - cy) / 0.4) ** 2 < 1] = random.integers(130, 255, 3)
        for side in (-0.12, 0.12):
            image[((x - cx - side) ** 2 + (y - cy + 0.1) ** 2) < 0.002] = 20
    return {"images": pixels}


def describe_set(key: str) -> dict:
    """What the data registry would say."""
    return {
        "title": "procedural faces (mini)",
        "kind": "procedural",
        "licence": "CC0",
        "citation": "@misc{faces_mini,\n  title = {Procedural faces}\n}",
        "bytes": 1_000_000,
    }


GIVEN = {"tasks": TASKS, "deviations": DEVIATIONS, "describe_set": describe_set}

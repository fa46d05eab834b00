"""The protocol of a speed measurement, and what one finds: the words on both sides of the process boundary.

It is timm's made stricter: a fresh process for each method, warm-up, a synchronised device before every stamp,
repetition until there are enough stamps and enough seconds, half the batch where memory does not suffice, and every raw
value kept; rates are from medians. Rates compare within one class of device, precision and batch size only.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata

from replications.spec import RunSpec

PROTOCOL = 2  # counts up when a change of the protocol makes numbers before and after it incomparable


@dataclass(frozen=True)
class Effort:
    """How long to measure training and inference, each: after `warmup` steps, until `stamps` and `seconds` are reached.

    A median needs some stamps; a processor that boosts, some seconds.
    """

    warmup: int
    stamps: int
    seconds: float


EFFORTS = {
    "smoke": Effort(1, 2, 0.0),
    "mini": Effort(1, 5, 0.4),
    "standard": Effort(10, 30, 8.0),
    "paper": Effort(10, 30, 8.0),
}


@dataclass(frozen=True)
class Measurement:
    """The result of a measurement. Seconds are of one step, sizes bytes, FLOPs and joules of one sample.

    `background_load` is the share of the machine's processors that others kept busy meanwhile; `uncounted` names heavy
    kernels that the FLOPs leave out.
    """

    batch_size: int
    inference_batch_size: int
    train_step_seconds: list[float]
    inference_step_seconds: list[float]
    train_memory: int
    inference_memory: int
    train_flops: float
    inference_flops: float
    uncounted: tuple[str, ...]
    train_joules: float | None
    background_load: float | None


def throughput_fingerprint(spec: RunSpec, code_fingerprint: str, device_name: str) -> str:
    """Hash what a speed depends on: resolved config without the seed, code, device, torch's version, this protocol.

    The contents of the data are not in it.
    """
    parts = {
        "spec": spec.model_dump(mode="json", exclude={"seed"}),
        "code": code_fingerprint,
        "device": device_name,
        "torch": metadata.version("torch"),
        "protocol": PROTOCOL,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

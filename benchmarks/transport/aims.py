"""Owns what the ratios of this group should be."""

from __future__ import annotations

from benchmarks.aims import Aim, cpu_per_byte
from benchmarks.transport.cases import CASES

BOUNDS = {  # times the rival's rate: image, batch, tokens
    "rival_tensorpack": (2, 5, 6),
    "rival_tensorflow": (6, 8, 100),
    "rival_ray": (5, 5, 3),
    "rival_torch": (10, 4, 300),
    "limit_raw": (0.8, 0.8, 0.8),
}
PROXY = 1.5  # times the plain proxy's rate
CURVE = 0.75  # times the rate without encryption
TRAINER = 0.25  # times the CPU time of a trainer that receives over ipc

AIMS = [
    *(
        Aim(case, side, rival, bound)
        for rival, bounds in BOUNDS.items()
        for case, bound in zip(CASES, bounds, strict=True)
        for side in ("ours", "tcp")
    ),
    *(Aim(case, side, "limit_proxy", PROXY) for case in CASES for side in ("standalone", "standalone_tcp")),
    *(Aim(case, "curve", "tcp", CURVE) for case in CASES),
    *(
        Aim(case, "ours", ipc, TRAINER, most=True, value=cpu_per_byte, what="consumer CPU s/GB")
        for ipc in ("limit_ipc_plain", "limit_ipc")
        for case in CASES
    ),
]

"""The Triton kernels of `dpap.spiking.kernel`; needs Triton to be imported.

Tensors are [T, units], whose rows are `*_step` apart (0 for a current that is constant over time). `rate` and
`sharpness` are pointers or, without LEAK and SHARP, None. FORMULA and `parameter` are those of a `Surrogate`. A
membrane in bfloat16 is kept as its distance from the threshold (`layout.kept_in`).
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def forward(
    current,
    spikes,
    membrane,
    rate,
    units,
    current_step,
    threshold,
    STEPS: tl.constexpr,
    LEAK: tl.constexpr,
    HARD: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Spikes, and where KEEP the membranes before reset, of BLOCK units."""
    unit = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = unit < units
    if LEAK:
        gain = tl.load(rate)
    v = tl.zeros([BLOCK], dtype=tl.float32)
    at, place = unit, unit
    for _ in range(STEPS):
        x = tl.load(current + at, mask=there, other=0.0).to(tl.float32)
        if LEAK:
            h = v + (x - v) * gain
        else:
            h = v + x
        fired = h >= threshold
        tl.store(spikes + place, tl.where(fired, 1.0, 0.0).to(spikes.dtype.element_ty), mask=there)
        if KEEP:
            if membrane.dtype.element_ty == tl.bfloat16:
                tl.store(membrane + place, (h - threshold).to(tl.bfloat16), mask=there)
            else:
                tl.store(membrane + place, h, mask=there)
        if HARD:
            v = tl.where(fired, 0.0, h)
        else:
            v = tl.where(fired, h - threshold, h)
        at += current_step
        place += units


@triton.jit
@no_type_check
def backward(
    membrane,
    upstream,
    d_current,
    d_rates,
    d_narrow,
    rate,
    sharpness,
    units,
    upstream_step,
    threshold,
    parameter,
    STEPS: tl.constexpr,
    LEAK: tl.constexpr,
    HARD: tl.constexpr,
    DETACH: tl.constexpr,
    LEARN: tl.constexpr,
    SHARP: tl.constexpr,
    FORMULA: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of BLOCK units' currents, and their sums of rate (where LEARN) and sharpness (where SHARP) times the
    gradients of these.
    """
    unit = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = unit < units
    if LEAK:
        gain = tl.load(rate)
    d_v = tl.zeros([BLOCK], dtype=tl.float32)
    d_rate = tl.zeros([BLOCK], dtype=tl.float32)
    d_sharp = tl.zeros([BLOCK], dtype=tl.float32)
    if SHARP:
        narrow = tl.load(sharpness)
    at = unit + (STEPS - 1) * upstream_step
    place = unit + (STEPS - 1) * units.to(tl.int64)
    h = tl.load(membrane + place, mask=there, other=0.0).to(tl.float32)
    if membrane.dtype.element_ty == tl.bfloat16:
        h += threshold
    for back in range(STEPS):
        # the membrane of the step before gives where this step began, and the next turn needs it anyhow
        earlier = tl.load(membrane + place - units, mask=there & (back + 1 < STEPS), other=0.0).to(tl.float32)
        if membrane.dtype.element_ty == tl.bfloat16:
            earlier += threshold
        d_s = tl.load(upstream + at, mask=there, other=0.0).to(tl.float32)
        fired = h >= threshold
        x = h - threshold
        if SHARP:
            x *= narrow
        if FORMULA == "arctan":
            b = 1.5707963267948966 * parameter * x
            slope = 0.5 * parameter / (1.0 + b * b)
        elif FORMULA == "sigmoid":
            y = 1.0 / (1.0 + tl.exp(-parameter * x))
            slope = parameter * y * (1.0 - y)
        else:
            slope = tl.maximum(1.0 - tl.abs(x) / parameter, 0.0) / parameter
        if SHARP:
            slope *= narrow
        if HARD:
            if not DETACH:
                d_s -= d_v * h
            d_h = d_s * slope + tl.where(fired, 0.0, d_v)
        else:
            if not DETACH:
                d_s -= d_v * threshold
            d_h = d_s * slope + d_v
        if SHARP:
            d_sharp += d_s * slope * (h - threshold)
        if LEAK:
            d_x = d_h * gain
            d_v = d_h - d_x
        else:
            d_x = d_h
            d_v = d_h
        tl.store(d_current + place, d_x.to(d_current.dtype.element_ty), mask=there)
        if LEARN:
            # x_t - v_{t-1} = (h_t - v_{t-1}) / rate
            if HARD:
                v = tl.where(earlier >= threshold, 0.0, earlier)
            else:
                v = tl.where(earlier >= threshold, earlier - threshold, earlier)
            d_rate += (h - v) * d_h
        h = earlier
        at -= upstream_step
        place -= units
    if LEARN:
        tl.store(d_rates + tl.program_id(0), tl.sum(d_rate, axis=0))
    if SHARP:
        tl.store(d_narrow + tl.program_id(0), tl.sum(d_sharp, axis=0))

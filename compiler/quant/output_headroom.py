"""Room for outputs that are 8-bit integers: where they end, a larger number is not told apart.

Only programs whose ends are integers have it, those of TFLite and ARM: real ends have no range.
"""

from dataclasses import replace

from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Range
from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.scale_groups import end_values, scale_for, scale_groups


def with_headroom(ready: Model, found: CalibrationResult) -> CalibrationResult:
    """Return a result whose outputs reach as far as unseen images are expected to need.

    Outputs are what somebody reads, so that they have it by whatever method.

    Args:
        ready: The ready model.
        found: What a method found, with how far each value is expected to reach.
    """
    ranges, traces = dict(found.calibration.ranges), dict(found.traces)
    ends = end_values(ready.graph)
    for group in scale_groups(ready.graph):
        told = [traces[name].reach or 0.0 for name in group if name in traces]
        reach = max(told, default=0.0)
        own = ranges[group[0]]
        # Only where the whole group ends: a wider scale for what layers read would cost them
        # resolution.
        if ends.issuperset(group) and reach > own.scale * own.limits[1]:
            wide = Range(scale_for(reach, own.signed), own.signed)
            ranges |= dict.fromkeys(group, wide)
            threshold = wide.scale * wide.limits[1]
            traces |= {
                name: replace(traces[name], threshold=threshold) for name in group if name in traces
            }
    return replace(found, calibration=replace(found.calibration, ranges=ranges), traces=traces)

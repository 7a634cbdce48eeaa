"""Check a network before it has weights: its cost, its tests, and its targets."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcc.compiler.frontend.spec import Spec
from tcc.compiler.frontend.spec_tests import Expectation, check_expectations
from tcc.compiler.ir.cost import Cost, compute_cost
from tcc.compiler.support.diagnostics import Diagnostic
from tcc.compiler.support.value_views import ValueView, count

if TYPE_CHECKING:
    from tcc.compiler.driver.support_check import Capability
    from tcc.compiler.ir.device import Plan


@dataclass(frozen=True, slots=True, repr=False)
class SpecCheck(ValueView):
    """A network's cost by layer, the results of its `tests:`, and the support by targets."""

    spec: Spec
    cost: Cost
    expectations: tuple[Expectation, ...]
    capabilities: "tuple[Capability, ...]"

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """Failed tests, and layers that a target cannot run."""
        failed = (outcome.create_diagnostic() for outcome in self.expectations if not outcome.holds)
        return (*failed, *(error for outcome in self.capabilities for error in outcome.errors))

    @property
    def holds(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def _summarize(self) -> Iterator[str]:
        errors = self.errors
        verdict = f"{count(len(errors), 'error')}" if errors else "no errors"
        yield (
            f"Check of {self.spec.name}: {verdict}; {self.cost.params:,} parameters, "
            f"{self.cost.macs:,} multiply-accumulates"
        )
        if self.expectations:
            passed = sum(outcome.holds for outcome in self.expectations)
            yield f"tests in the spec: {passed} of {len(self.expectations)} pass"
        else:
            yield "the spec has no tests"
        if self.capabilities:
            yield "; ".join(outcome.describe() for outcome in self.capabilities)
        else:
            yield "no target was checked"
        yield from (f"{error.code}: {error.message}" for error in errors)


def check(spec: Spec, plans: "Iterable[Plan]") -> SpecCheck:
    """Check a network: its cost, its `tests:`, and its support by each target.

    Raises:
        UserError: The spec's `tests:` are invalid, or a target cannot use the network at all.
    """
    cost, expectations = compute_cost(spec.graph), check_expectations(spec)
    targets = tuple(plans)
    # Without targets the check is quick, and does not import NumPy.
    capabilities = _check_capabilities(spec, targets) if targets else ()
    return SpecCheck(spec, cost, expectations, capabilities)


def _check_capabilities(spec: Spec, plans: "Iterable[Plan]") -> "tuple[Capability, ...]":
    from tcc.compiler.driver.support_check import check_capability

    return tuple(check_capability(spec.graph, plan) for plan in plans)

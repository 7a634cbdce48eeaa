"""What is known of a network before it has weights: its costs, its own tests, and its targets."""

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
    """A network's cost by layer, how its `tests:` end, and what targets can run of it."""

    spec: Spec
    cost: Cost
    expectations: tuple[Expectation, ...]
    capabilities: "tuple[Capability, ...]"

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """Tests that fail, and layers that a target cannot run."""
        failed = (outcome.create_diagnostic() for outcome in self.expectations if not outcome.holds)
        return (*failed, *(error for outcome in self.capabilities for error in outcome.errors))

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
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
            yield f"its own tests: {passed} of {len(self.expectations)} pass"
        else:
            yield "it has no tests of its own"
        if self.capabilities:
            yield "; ".join(outcome.describe() for outcome in self.capabilities)
        else:
            yield "no target was asked"
        yield from (f"{error.code}: {error.message}" for error in errors)


def check(spec: Spec, plans: "Iterable[Plan]") -> SpecCheck:
    """Return what is known of a network, and of it on each target.

    Raises:
        UserError: A test's settings are wrong, or a target can do nothing with the network.
    """
    costs, facts = compute_cost(spec.graph), check_expectations(spec)
    planned = tuple(plans)
    # A look at the text alone is quick, and loads no numpy.
    return SpecCheck(spec, costs, facts, _check_capabilities(spec, planned) if planned else ())


def _check_capabilities(spec: Spec, plans: "Iterable[Plan]") -> "tuple[Capability, ...]":
    from tcc.compiler.driver.support_check import check_capability

    return tuple(check_capability(spec.graph, plan) for plan in plans)

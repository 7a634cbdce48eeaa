"""The parts of a rule: its severity, source, check and remedy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from tcc.backends.pulsar.rules.operator import OnnxOperator


class Severity(Enum):
    """The consequence of breaking a rule."""

    REFUSED = "refused"
    """The documents exclude it, or do not list it as supported."""
    DOUBTFUL = "doubtful"
    """It may run on the CPU or fail: the documents are unclear, or their own examples do it."""
    SLOW = "slow"
    """It runs at a fraction of the NPU's speed."""


class Processor(Enum):
    """The processor of an operator, from the chip's operator list."""

    NPU = "NPU"
    EITHER = "CPU or NPU"
    CPU = "CPU"


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a rule: a document at a commit, and a part of it."""

    document: str
    part: str

    def __str__(self) -> str:
        """Return both, as messages show them."""
        return f"{self.document}, {self.part}"


Check = Callable[[OnnxOperator], str | None]
"""Returns the violation of a rule, or None if there is none."""


@dataclass(frozen=True, slots=True)
class NpuRule:
    """One documented limit: its operators, requirement, source, and remedy."""

    name: str
    operators: tuple[str, ...]
    requirement: str
    source: Source
    check: Check
    remedy: str
    severity: Severity = Severity.REFUSED

    def __str__(self) -> str:
        """Return name, requirement and source, as messages show them."""
        # The source is shown because documents can be wrong and the rules were not tested with the
        # tools (docs/decisions/0022-rules-read-the-file.md): a user can look it up.
        return f"rule {self.name}: {self.requirement} ({self.source})"


@dataclass(frozen=True, slots=True)
class RuleBook:
    """The documented operators of a chip, and their rules.

    `max_opset` is the newest documented opset. `unlisted_text` is the consequence of an operator
    that is not listed. `alternatives` has remedies for some of these operators.
    """

    operator_list: Source
    processors: Mapping[str, Processor]
    rules: Sequence[NpuRule]
    opset_source: Source
    min_opset: int
    max_opset: int | None
    unlisted_text: str
    alternatives: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule; `operator` and `kind` are empty for findings on the file."""

    severity: Severity
    operator: str
    kind: str
    message: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        """Return the finding in one line."""
        location = f"{self.operator} ({self.kind}): " if self.operator else ""
        return f"{self.severity.value}: {location}{self.message}; {self.rule}"

"""What a rule is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from tcc.backends.pulsar.rules.operator import OnnxOperator


class Severity(Enum):
    """What it means that a rule is broken."""

    REFUSED = "refused"
    """The documents say that it does not build, or say nothing that would allow it."""
    DOUBTFUL = "doubtful"
    """It may run on the CPU, or not at all: documents are unclear, or their own examples do it."""
    SLOW = "slow"
    """It runs at a fraction of the NPU's speed."""


class Processor(Enum):
    """Where an operator runs, by the list of a chip's operators."""

    NPU = "NPU"
    EITHER = "CPU or NPU"
    CPU = "CPU"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a rule is written: a document at a commit, and the part of it."""

    document: str
    part: str

    def __str__(self) -> str:
        """Both, as messages name them."""
        return f"{self.document}, {self.part}"


Check = Callable[[OnnxOperator], str | None]
"""Says what was found where a rule is broken, None where it holds."""


@dataclass(frozen=True, slots=True)
class NpuRule:
    """One documented limit: what it says in our words, where, and what to write instead."""

    name: str
    operators: tuple[str, ...]
    requirement: str
    source: Source
    check: Check
    remedy: str
    severity: Severity = Severity.REFUSED

    def __str__(self) -> str:
        """Name, meaning and source, as messages print them."""
        # With its source, since documents can be wrong and nothing here was compiled by the tools
        # (docs/decisions/0022-rules-read-the-file.md): a user may look it up and know better.
        return f"rule {self.name}: {self.requirement} ({self.source})"


@dataclass(frozen=True, slots=True)
class RuleBook:
    """All that the documents of a chip say: its operators and their rules.

    `max_opset` is the last opset that they name, `unlisted_text` what an operator means that the
    list does not have, and `alternatives` what to write for some of those.
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
    """A broken rule: the operator's name, if it is one's; what was found, and the remedy."""

    severity: Severity
    operator: str
    kind: str
    message: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        """One line."""
        location = f"{self.operator} ({self.kind}): " if self.operator else ""
        return f"{self.severity.value}: {location}{self.message}; {self.rule}"

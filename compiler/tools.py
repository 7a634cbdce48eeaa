"""What the project needs from outside and may not find."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tool:
    """Something outside the project that a step needs; `install` is the command that brings it.

    `needed_for` completes "is needed to ..."; `version` is None where the tool is missing. What
    does not `build` only runs artifacts here: building goes without it, to the same bytes.
    """

    name: str
    needed_for: str
    version: str | None
    install: str
    builds: bool = True


class MissingTool(Exception):  # noqa: N818 - it is the tool that is missing
    """A needed tool is not here; the command line exits with 3 and prints how to install it."""

    def __init__(self, tool: Tool) -> None:
        super().__init__(f"{tool.name} is needed to {tool.needed_for}; install it: {tool.install}")
        self.tool = tool

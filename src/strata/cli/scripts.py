"""`strata completion`: what a shell needs to complete verbs and options, made from the catalogue."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from strata.cli import verbs
from strata.cli.commands import COMMANDS
from strata.cli.overview import parsers


def run(given: Namespace) -> int:
    """Print the script for a shell."""
    print("\n".join({"bash": _bash, "zsh": _zsh, "fish": _fish}[given.shell]()))
    return 0


def _words() -> tuple[list[str], dict[str, list[str]], dict[str, list[str]]]:
    """Return the first words, the second words of each group, and the options of each command and verb."""
    second = {group: [verb.words[1] for verb in members] for group, members in verbs.groups().items()}
    options = {
        name: [word for action in parser._actions for word in action.option_strings if word.startswith("--")]
        for name, parser in parsers().items()
    }
    for name in second[verbs.WHOLE]:  # whose group may be left out
        options.setdefault(name, options[f"{verbs.WHOLE} {name}"])
    first = sorted({*COMMANDS, *second, *second[verbs.WHOLE], "--help", "--version"})
    return first, second, options


def _bash() -> Iterator[str]:
    first, second, options = _words()
    yield "# for bash: source <(strata completion bash)"
    yield "_strata() {"
    yield '  local cur="${COMP_WORDS[COMP_CWORD]}" one="${COMP_WORDS[1]}" two="${COMP_WORDS[2]}" words=""'
    yield "  if (( COMP_CWORD == 1 )); then"
    yield f'    words="{" ".join(first)}"'
    yield '  elif [[ "$cur" == -* ]]; then'
    yield '    case "$one $two" in'
    yield from (
        f'      "{name}") words="{" ".join(found)}" ;;' for name, found in options.items() if " " in name
    )
    yield '      *) case "$one" in'
    yield from (
        f'        {name}) words="{" ".join(found)}" ;;' for name, found in options.items() if " " not in name
    )
    yield "      esac ;;"
    yield "    esac"
    yield "  elif (( COMP_CWORD == 2 )); then"
    yield '    case "$one" in'
    yield from (f'      {group}) words="{" ".join(names)}" ;;' for group, names in second.items())
    yield "    esac"
    yield "  fi"
    yield '  COMPREPLY=($(compgen -W "$words" -- "$cur"))'
    yield "}"
    yield "complete -o default -F _strata strata"


def _zsh() -> Iterator[str]:
    yield "# for zsh: source <(strata completion zsh)"
    yield "autoload -U +X compinit && compinit"
    yield "autoload -U +X bashcompinit && bashcompinit"
    yield from list(_bash())[1:]


def _fish() -> Iterator[str]:
    first, second, options = _words()
    yield "# for fish: strata completion fish | source"
    yield 'function __strata_is; set -l said (commandline -opc); test "$said" = "$argv"; end'
    yield 'function __strata_in; set -l said (commandline -opc); string match -q -- "$argv *" "$said "; end'
    yield f"complete -c strata -n '__strata_is strata' -f -a '{' '.join(first)}'"
    for group, names in second.items():
        yield f"complete -c strata -n '__strata_is strata {group}' -f -a '{' '.join(names)}'"
    for name, found in options.items():
        yield from (f"complete -c strata -n '__strata_in strata {name}' -l {option[2:]}" for option in found)

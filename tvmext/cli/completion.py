"""``tvmext completion``: the script that makes a shell complete verbs, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .session import common_options

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_TVMEXT_COMPLETE"
"""Set by the script when it asks for completions; click answers them."""


@click.command(
    "completion",
    short_help="Print the script for completion in a shell.",
    epilog="""\b
Examples:
  tvmext completion bash > ~/.local/share/bash-completion/completions/tvmext
  tvmext completion zsh > ~/.zfunc/_tvmext
  tvmext completion fish > ~/.config/fish/completions/tvmext.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
@common_options
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes verbs, options, their values and files. bash (4.4
    or newer) and fish read it from the files below; for zsh that folder has to be in fpath.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    click.echo(kind(context.find_root().command, {}, "tvmext", VARIABLE).source())

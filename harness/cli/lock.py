# SPDX-License-Identifier: MIT
"""`samepage lock RECIPE`: pin what a recipe asks for at the versions that the archive has now."""

from __future__ import annotations

import click

from harness.config import load_config
from harness.packages.recipe import load_recipe
from harness.packages.renew import renew_lock


@click.command()
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
def lock(recipes: tuple[str, ...]) -> None:
    """Renew the lock file of each RECIPE (such as tools, guest, kernel-6.12) from the configured Debian mirror.

    apt resolves in a private root, and accepts only indexes that Debian's archive keys have signed.
    """
    config = load_config()
    for recipe in recipes:  # all of them before the first lock changes
        load_recipe(config.images, recipe)
    for recipe in recipes:
        click.echo(renew_lock(config, recipe))

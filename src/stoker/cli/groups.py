"""A group of commands that names the nearest one when there is none of the name that was typed."""

import click

from stoker.core.errors import UnknownNameError


class NearestGroup(click.Group):
    """A click group with our error for an unknown command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names. Raises UnknownNameError with the nearest and all names."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            from stoker.core.registry import nearest

            close = nearest(args[0], known)
            hint = f"did you mean {close!r}? " if close else ""
            remedy = f"{hint}known: {', '.join(known)}"
            raise UnknownNameError(f"no command of {ctx.command_path}", where=args[0], remedy=remedy)
        return super().resolve_command(ctx, args)


class OrderedGroup(NearestGroup):
    """Such a group that lists its commands in the order of a newcomer's path, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which the commands were added."""
        return list(self.commands)

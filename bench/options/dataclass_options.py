"""Makes commands whose options are the fields of a dataclass, shown in groups.

A field is annotated like a typer parameter: `Annotated[type, typer.Option(…)]`.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
import inspect
from collections.abc import Callable, Collection
from copy import copy
from typing import Annotated, Any, TypeVar, cast, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from bench.options.multi_value import repeat_option

OptionsT = TypeVar("OptionsT")


def command_with_options(
    kind: type[OptionsT],
    command: Callable[[typer.Context, OptionsT], None],
    hidden: Collection[str] = (),
    **more: type[object],
) -> Callable[..., None]:
    """Return `command` with a parameter for each field of `kind`, as typer requires.

    The help leaves out the fields in `hidden`; the command explains why it refuses them.
    The options in `more` act when they are parsed and pass no value to the command.
    """
    build: Callable[..., OptionsT] = kind

    def take(context: typer.Context, **values: object) -> None:
        for name in more:
            del values[name]
        command(context, build(**values))

    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    hints |= {name: _hidden(hints[name]) for name in hidden}
    parameters = [_parameter("context", typer.Context, inspect.Parameter.empty)]
    parameters += [_parameter(name, hint, False) for name, hint in more.items()]
    parameters += [
        _parameter(one.name, hints[one.name], one.default)
        for one in inspect.signature(kind).parameters.values()
    ]
    take.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    take.__annotations__ = {one.name: one.annotation for one in parameters}
    return take


def _hidden(annotation: Any) -> Any:  # noqa: ANN401 - types
    of, option = get_args(annotation)
    hidden = copy(option)
    hidden.hidden = True
    return Annotated[of, hidden]


def options_given(context: typer.Context) -> list[str]:
    """Return the names of the options given on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]


def single_command(
    name: str,
    function: Callable[..., object],
    *,
    cls: type[TyperCommand] = TyperCommand,
    help: str,  # noqa: A002 - as typer calls it
    epilog: str | None = None,
) -> TyperCommand:
    """Return a sub-command that calls the function with its options."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name, cls=cls, help=help, epilog=epilog)(function)
    return cast("TyperCommand", typer.main.get_command(app))


def _parameter(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


class GroupedHelp(TyperGroup):
    """A command whose help shows its options in groups and its sub-commands last.

    `--assert` takes all the arguments that follow it.
    """

    # typer's own types of these differ between its versions.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Return the remaining arguments; `--assert A B` is read as `--assert A --assert B`."""
        return super().parse_args(ctx, repeat_option(args, "--assert"))

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write the options, each group under its title."""
        _write_groups(self, ctx, formatter)
        self.format_commands(ctx, formatter)


class GroupedCommand(TyperCommand):
    """A sub-command whose help shows its options in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write the options, each group under its title."""
        _write_groups(self, ctx, formatter)


def _write_groups(command: Any, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            title = getattr(parameter, "rich_help_panel", None) or "Options"
            groups.setdefault(title, []).append(record)
    for title, records in groups.items():
        with formatter.section(title):
            formatter.write_dl(records)

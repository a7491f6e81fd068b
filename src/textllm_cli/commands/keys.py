"""`textllm keys`: who may call the server. It works on the database itself, so that the first key can be made."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from textllm_cli.commands import options
from textllm_cli.engine import Administration
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import reporting, table
from textllm_core.api_keys import MAX_KEYS_PER_PAGE
from textllm_core.records.api_keys import ApiKey
from textllm_core.tenancy import Caller, Role

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys that callers of the server need.")

Tenant = Annotated[
    str, typer.Option("--tenant", metavar="ID", help="Whose key: 1 to 64 characters of A-Z a-z 0-9 . _ -")
]
T = TypeVar("T")


@app.command()
def create(
    context: typer.Context,
    role: Annotated[
        Role, typer.Option("--role", help="admin: all of its tenant, and its keys; service: any user; user: one.")
    ],
    tenant: Tenant = "default",
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Of the role user: which one.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="What you call the key.")] = None,
    models: Annotated[
        str | None, typer.Option("--models", metavar="NAMES", help="The models that it may use, with commas; else all.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Make a key, and print its secret: it is kept nowhere, and cannot be shown again.

    Example: textllm keys create --role user --user ada --name phone
    """
    admin = Caller(tenant, "admin")
    with reporting(as_json=as_json) as screen:
        issued = _run(
            context,
            lambda administration: administration.issue_api_key(
                admin, role=role, user_id=user, name=name, models=models.split(",") if models is not None else None
            ),
        )
        screen.say(f"{issued.id}, {role} of the tenant {tenant}; keep its secret, it is not shown again:")
        screen.record(issued, issued.secret)


@app.command("list")
def list_(
    context: typer.Context,
    tenant: Tenant = "default",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=MAX_KEYS_PER_PAGE, metavar="N", help="How many at most.")
    ] = MAX_KEYS_PER_PAGE,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="Those behind this key.")] = None,
    as_json: options.Json = False,
) -> None:
    """List a tenant's keys, newest first, revoked ones too.

    Example: textllm keys list --json
    """
    admin = Caller(tenant, "admin")
    with reporting(as_json=as_json) as screen:
        page = _run(context, lambda administration: administration.list_api_keys(admin, limit=limit, after=after))
        header = ("key", "secret", "role", "user", "created", "revoked", "models")
        names = [key.name or "" for key in page.data]
        screen.record(page, table(header, [_cells(key) for key in page.data], names))
        if page.has_more:
            screen.say(f"there are more: --after {page.data[-1].id}")


@app.command()
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key, by its id: key_…")],
    tenant: Tenant = "default",
    as_json: options.Json = False,
) -> None:
    """Revoke a key; every worker refuses it within a second.

    Example: textllm keys revoke key_5f0c2b9a7d31e8640c1f9b22
    """
    admin = Caller(tenant, "admin")
    with reporting(as_json=as_json) as screen:
        revoked = _run(context, lambda administration: administration.revoke_api_key(admin, key_id))
        screen.record({"id": revoked.id, "deleted": True}, f"{revoked.id} is revoked.")


def _run(context: typer.Context, call: Callable[[Administration], Awaitable[T]]) -> T:
    return interruptibly(_called(invocation_of(context), call))


async def _called(invocation: Invocation, call: Callable[[Administration], Awaitable[T]]) -> T:
    settings = invocation.settings()
    async with invocation.engine(settings).open_administration(settings) as administration:
        return await call(administration)


def _cells(key: ApiKey) -> tuple[str, ...]:
    return (
        key.id,
        f"{key.hint}…",
        key.role,
        key.user_id or "",
        f"{key.created_at:%Y-%m-%d %H:%M}",
        f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "",
        "all" if key.models is None else ",".join(key.models),
    )

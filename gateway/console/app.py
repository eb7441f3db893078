"""What of the gateway's HTTP port is the console: the page, its data, and the calls that it makes.

    GET  /console/                   the page, and the files that it is made of
    GET  /console/users              {"userIds": […]}: some, to choose from
    GET  /console/rollout            the newest riptide.v1.RolloutsWatchResponse
    GET  /console/operator           {"offered": true}: whether the calls of Rollouts are
    POST /riptide.v1.Recommender/…   Recommend, SimilarItems, RecordEvents, DescribeUser
    POST /riptide.v1.Rollouts/…      Promote, RollBack; with the header riptide-operator-token,
                                     and only where nobody but this machine reaches the port

Messages are in protobuf's JSON mapping; calls and errors have the form that `connect` tells.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path

import grpc
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from client.riptide.v1 import recommender_pb2, rollouts_pb2
from features.operator_token import TOKEN_METADATA
from features.settings import Settings
from gateway.console import guard
from gateway.console.connect import ConnectError, answered, failed, json_answer
from gateway.console.forward import Backend, add_calls, open_channel
from gateway.console.users import Users
from gateway.console.watched import Watched

_PAGE = Path(__file__).with_name("page")
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_RECOMMENDER = recommender_pb2.DESCRIPTOR.services_by_name["Recommender"]
_ROLLOUTS = rollouts_pb2.DESCRIPTOR.services_by_name["Rollouts"]
_OPERATOR_S = 5.0
_AWAY = (
    "promoting and rolling back is offered on the machine itself only, where the operator's token crosses no "
    "network: python -m rollout does both there"
)
_OFF = "the console is off: the setting RIPTIDE_CONSOLE=1 offers it to all who reach this port\n"

HEADERS = {
    # What a title says is text, whatever it says; nothing comes from elsewhere, and nothing frames the page.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_console(app: web.Application, settings: Settings, open_to_all: Collection[str]) -> None:
    """Adds the console to an application, or a sentence about it where it is off.

    `open_to_all`: paths that monitoring asks for, under whatever name it knows this machine by.
    """
    if not settings.offers_console:
        for path in ("/", "/console{rest:.*}", f"/{_RECOMMENDER.file.package}.{{rest:.*}}"):
            app.router.add_route("*", path, _off)
        return
    gateway = Backend(
        _RECOMMENDER,
        ("Recommend", "SimilarItems", "RecordEvents", "DescribeUser"),
        open_channel(settings.gateway_target),
        settings.default_deadline_ms / 1000,
        f"no worker of the gateway answers at {settings.gateway_target}",
    )
    target = settings.operator_target
    driver = Backend(
        _ROLLOUTS,
        ("Promote", "RollBack"),
        open_channel(target),
        _OPERATOR_S,
        f"no driver of rollouts answers at {target}: python -m rollout drive is one",
        headers=(TOKEN_METADATA,),
    )
    # The operator's service is on loopback for its token, which this port must not undo.
    operates = settings.is_on_loopback
    users, watched = Users(settings), Watched(driver, settings.state_dir)

    async def some_users(request: web.Request) -> web.Response:
        return json_answer(json.dumps({"userIds": await users.some()}))

    async def rollout(request: web.Request) -> web.Response:
        return await answered(await watched.newest())

    async def operating(request: web.Request) -> web.Response:
        return json_answer(json.dumps({"offered": operates}))

    async def until_the_end(app: web.Application) -> AsyncIterator[None]:
        yield
        await watched.close()
        await users.close()
        for backend in (gateway, driver):
            await backend.channel.close()

    for path in ("/", "/console"):
        app.router.add_get(path, _to_the_page, allow_head=False)
    app.router.add_get("/console/users", some_users, allow_head=False)
    app.router.add_get("/console/rollout", rollout, allow_head=False)
    app.router.add_get("/console/operator", operating, allow_head=False)
    for file in sorted(_PAGE.iterdir()):
        if file.suffix in _KINDS:  # what an editor has left there is no part of it
            name = "" if file.name == "index.html" else file.name
            app.router.add_get(f"/console/{name}", _sending(file), allow_head=False)
    add_calls(app, gateway)
    if operates:
        add_calls(app, driver)
    else:
        app.router.add_post(f"/{_ROLLOUTS.full_name}/{{method:.*}}", _away)
    app.middlewares.append(_guarding(settings, open_to_all))
    app.cleanup_ctx.append(until_the_end)


def _guarding(settings: Settings, open_to_all: Collection[str]) -> Middleware:
    hosts = {"localhost", settings.host.lower()}

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in open_to_all:
            return await handler(request)
        try:
            guard.check(request, hosts)
            response = await handler(request)
        except ConnectError as error:
            response = failed(error)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return guarded


def _sending(file: Path) -> Callable[[web.Request], Awaitable[web.Response]]:
    body = file.read_bytes()

    async def send(request: web.Request) -> web.Response:
        return web.Response(
            body=body,
            content_type=_KINDS[file.suffix],
            charset="utf-8",
            headers={"Cache-Control": "no-cache"},
        )

    return send


async def _to_the_page(request: web.Request) -> web.Response:
    raise web.HTTPFound("/console/")


async def _away(request: web.Request) -> web.Response:
    raise ConnectError(grpc.StatusCode.UNIMPLEMENTED, _AWAY)


async def _off(request: web.Request) -> web.Response:
    raise web.HTTPNotFound(text=_OFF)

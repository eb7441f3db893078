"""Who may use the console: pages that came from here, and programs. It is for loopback, which every page on
the web can reach through a browser of this machine.

- `Host` must be an address, `localhost` or the name that the gateway binds: a name of an attacker that they
  let point to this machine (DNS rebinding) is none of these.
- What another site asks for is refused (Fetch Metadata; where a browser does not send it, `Origin`), but for
  following a link to here.
- A call must be declared JSON, which a form of another site cannot do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from aiohttp import web

_OWN = ("same-origin", "none")
_LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


class Misdirected(web.HTTPClientError):
    """421: the request is for a host that this is not."""

    status_code = 421


def check(request: web.Request, hosts: Collection[str]) -> None:
    """Returns if the request may be answered.

    Args:
        request: to be answered.
        hosts: names in lower case that `Host` may have, beside addresses.

    Raises:
        Misdirected, HTTPForbidden, HTTPUnsupportedMediaType: it may not; the text is a sentence.
    """
    host = request.headers.get("Host", "")
    name = _name(host)
    if name not in hosts and not _is_address(name):
        raise Misdirected(
            text="Host: must be an address of this machine, or the name that RIPTIDE_HOST has\n"
        )
    if not _from_here(request, host):
        raise web.HTTPForbidden(text="Sec-Fetch-Site, Origin: pages of other sites may not call this one\n")
    if request.method == "POST" and request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="Content-Type: must be application/json\n")


def _from_here(request: web.Request, host: str) -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:
        origin = request.headers.get("Origin")
        return origin is None or origin.partition("://")[2] == host
    link = request.method == "GET" and all(request.headers.get(name) == _LINK[name] for name in _LINK)
    return site in _OWN or link


def _name(host: str) -> str:
    """`host` without its port and the brackets of an IPv6 address, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

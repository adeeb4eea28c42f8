"""The query page's files: served with the right types, complete, and without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI

from thanostack.testing.asgi import call
from thanostack.web import pages
from thanostack.web.pages import mount_page

STATIC = Path(pages.__file__).parent / "static"


def application(prefix=""):
    app = FastAPI()
    mount_page(app, prefix)
    return app


@pytest.mark.parametrize(
    "path, content_type",
    [
        ("/", b"text/html; charset=utf-8"),
        ("/graph", b"text/html; charset=utf-8"),
        ("/static/app.js", b"text/javascript; charset=utf-8"),
        ("/static/chart.js", b"text/javascript; charset=utf-8"),
        ("/static/style.css", b"text/css; charset=utf-8"),
        ("/static/icon.svg", b"image/svg+xml"),
    ],
)
async def test_files_are_served_with_their_types(path, content_type):
    """A module script with a wrong type would not run; every file is whole."""
    reply = await call(application(), path, method="GET")
    name = path.rpartition("/")[2] if path.startswith("/static") else "index.html"
    assert (reply.status, reply.headers[b"content-type"]) == (200, content_type)
    assert reply.body == (STATIC / name).read_bytes()
    assert reply.headers[b"x-content-type-options"] == b"nosniff"


async def test_a_copy_that_is_still_good_is_not_sent_again():
    """The ETag makes a repeated load cheap, and another one is answered with the file."""
    first = await call(application(), "/static/app.js", method="GET")
    etag = first.headers[b"etag"].decode()
    again = await call(
        application(), "/static/app.js", method="GET", headers={"If-None-Match": etag}
    )
    assert (again.status, again.body) == (304, b"")
    other = await call(
        application(), "/static/app.js", method="GET", headers={"If-None-Match": '"x"'}
    )
    assert other.status == 200


async def test_a_prefix_moves_the_page():
    """Behind --web.route-prefix the page and its files lie below it, and / leads there."""
    app = application("/thanos")
    assert (await call(app, "/thanos/graph", method="GET")).status == 200
    assert (await call(app, "/thanos/static/app.js", method="GET")).status == 200
    reply = await call(app, "/", method="GET")
    assert (reply.status, reply.headers[b"location"]) == (307, b"/thanos/graph")


async def test_only_the_pages_own_files_are_served():
    """There is no path out of the folder, and what is not a file is 404."""
    for path in ("/static/", "/static/missing.js", "/static/../pages.py"):
        assert (await call(application(), path, method="GET")).status == 404


def test_the_page_needs_nothing_from_elsewhere():
    """No file names another host, and every file that is asked for is there."""
    for path in STATIC.iterdir():
        text = path.read_text()
        assert not re.findall(r"(?:src|href|url\(|from|import)[\s=(\"']+(?:https?:)?//", text), path
        for name in re.findall(r"static/([\w.]+)", text) + re.findall(r'from "\./([\w.]+)"', text):
            assert (STATIC / name).is_file(), name


def test_every_control_has_a_name():
    """Each input is inside a label or has an accessible name of its own."""
    page = (STATIC / "index.html").read_text()
    for control in re.findall(r"<input[^>]*>", page):
        labelled = re.search(rf"<label[^>]*>[^<]*{re.escape(control)}\s*[^<]*</label>", page)
        assert labelled or "aria-label" in control, control
    for name in ("Use Deduplication", "Use Partial Response"):
        assert name in page

"""A Hugging Face hub on this machine: folders served under the hub's addresses, for tests of downloads."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Handler(BaseHTTPRequestHandler):
    """Answers from `server.repos`, and notes in `server.asked` what it was asked for."""

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.asked.append(path)
        owner, name, what, revision, *rest = [*path.removeprefix("api/models/").split("/"), "", ""][:99]
        served = self.server.repos.get(f"{owner}/{name}")
        commit = revision if len(revision) == 40 else hashlib.sha1(name.encode()).hexdigest()
        if served is None:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("api/"):
            self.send(200, json.dumps(listing(served, commit, what)).encode())
        elif (file := served / "/".join(filter(None, rest))).is_file():
            etag = hashlib.sha256(file.read_bytes()).hexdigest()
            self.send(200, file.read_bytes(), {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})
        else:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})

    do_HEAD = do_GET

    def send(self, status, content, headers=()):
        self.send_response(status)
        for key, value in {**dict(headers), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@contextmanager
def fake_hub(repos):
    """Serves {id: folder}, the same folder at every commit and branch; other ids are unknown.

    Yields (address, list of the paths asked for).
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.repos, server.asked = repos, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def listing(folder, commit, what):
    """What the hub's interface answers about a repository: its files, or all about it."""
    files = {
        file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()
    }
    if what == "tree":
        sizes = {name: file.stat().st_size for name, file in files.items()}
        return [{"type": "file", "path": name, "size": size, "oid": commit} for name, size in sizes.items()]
    return {"id": "owner/name", "sha": commit, "siblings": [{"rfilename": name} for name in files]}

"""A Hugging Face hub on this machine: folders served under the hub's addresses, for tests of downloads."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

# What the hub answers instead of a repository: (status, X-Error-Code).
REFUSALS = {
    "gated": (403, "GatedRepo"),
    "gone": (404, "RepoNotFound"),
    "no revision": (404, "RevisionNotFound"),
}


@contextmanager
def fake_hub(repos):
    """Serves {id: folder, or a key of REFUSALS}, the same folder at every commit and branch.

    Yields (address, list of the paths asked for).
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(body=True)

        def do_HEAD(self):
            self.answer(body=False)

        def answer(self, body):
            path = unquote(urlsplit(self.path).path).strip("/")
            asked.append(path)
            parts = path.removeprefix("api/models/").split("/")
            repo = "/".join(parts[:2])
            served = repos.get(repo, "gone")
            if isinstance(served, str):
                return self.send(*REFUSALS[served], b"", body)
            if path.startswith("api/"):
                files = sorted(file for file in served.rglob("*") if file.is_file())
                names = [file.relative_to(served).as_posix() for file in files]
                if parts[2] == "tree":
                    answer = [
                        {"type": "file", "path": name, "size": file.stat().st_size, "oid": commit_of(name)}
                        for name, file in zip(names, files, strict=True)
                    ]
                else:
                    siblings = [{"rfilename": name} for name in names]
                    asked_for = parts[3] if len(parts) > 3 else "main"  # owner/name/revision/…
                    commit = asked_for if len(asked_for) == 40 else commit_of(repo)
                    answer = {"id": repo, "sha": commit, "siblings": siblings}
                return self.send(200, None, json.dumps(answer).encode(), body)
            revision, file = parts[3], served / "/".join(parts[4:])  # owner/name/resolve/revision/path
            commit = revision if len(revision) == 40 else commit_of(repo)
            if not file.is_file():
                return self.send(404, "EntryNotFound", b"", body, commit)
            return self.send(200, None, file.read_bytes(), body, commit)

        def send(self, status, code, content, body, commit=None):
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            if commit:
                self.send_header("X-Repo-Commit", commit)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def commit_of(name):
    """Forty hexadecimal digits, always the same for a name."""
    return hashlib.sha1(name.encode()).hexdigest()

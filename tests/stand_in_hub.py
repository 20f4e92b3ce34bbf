"""A stand-in for the Hugging Face Hub on 127.0.0.1: what `huggingface_hub` needs to push and to load models.

It answers: creating a repository, the check of a card's YAML, preupload, commits of regular and LFS files,
LFS uploads, model information, file listings, and resolve (HEAD and GET). It keeps everything in memory.
Clients need ``HF_ENDPOINT=<url>``, which they read at import, and ``HF_HUB_DISABLE_XET=1``.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_FROM = 10_000
"""Files from so many bytes are uploaded by LFS, as on the Hub all large and binary files are."""
TOKEN = "hf_stand_in"
"""The token of the user "user", who may write to "user/..."."""


@dataclass(frozen=True)
class File:
    """A file's bytes, and how the Hub keeps it."""

    data: bytes
    lfs: bool

    @cached_property
    def git_sha(self) -> str:
        content = self.data
        if self.lfs:
            head = "version https://git-lfs.github.com/spec/v1"
            content = f"{head}\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class Repository:
    """Commits (their files by path) and references to them."""

    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, File], ref: str = "main") -> str:
        """Makes these files the newest commit of a branch; returns its id."""
        text = repr((len(self.commits), sorted((path, file.git_sha) for path, file in files.items())))
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid] = dict(files)
        self.refs[ref] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        oid = self.refs.get(revision, revision)
        return oid if oid in self.commits else None


class StandInHub:
    """The server's state, and what was asked of it.

    Attributes:
        url: address for HF_ENDPOINT.
        repositories: by "user/name".
        requests: "METHOD path" of every request, in order.
    """

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []

    def add_folder(self, repo_id: str, folder: Path, ref: str = "main") -> str:
        """Commits the files of a folder to a repository, which is made if needed; returns the commit's id."""
        files = {
            path.relative_to(folder).as_posix(): File(path.read_bytes(), path.stat().st_size >= LFS_FROM)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return self.repositories.setdefault(repo_id, Repository()).commit(files, ref)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a revision."""
        repository = self.repositories[repo_id]
        return {path: file.data for path, file in repository.commits[repository.refs[revision]].items()}

    def asked(self, method: str) -> list[str]:
        """Paths of all requests with a method."""
        return [line.split(" ", 1)[1] for line in self.requests if line.startswith(method + " ")]


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str, commit: str | None = None) -> None:
        self.status, self.code, self.message, self.commit = status, code, message, commit


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandInHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._read_chunks()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self._route(path, body)
        except _RefusedError as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            if refused.commit:
                headers["X-Repo-Commit"] = refused.commit
            self._send(refused.status, json.dumps({"error": refused.message}).encode(), headers)

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _route(self, path: str, body: bytes) -> None:
        parts = path.strip("/").split("/")
        if self.command == "PUT" and parts[0] == "lfs":
            if hashlib.sha256(body).hexdigest() != parts[1]:
                raise _RefusedError(400, "BadRequest", "the sha256 is another one")
            self.hub.uploads[parts[1]] = body
            return self._send(200, b"")
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            self._may_write("/".join(parts[:2]).removesuffix(".git"))
            wanted = json.loads(body)["objects"]
            return self._json({"transfer": "basic", "objects": [self._lfs_action(item) for item in wanted]})
        if parts[:2] == ["api", "models"]:
            return self._model("/".join(parts[2:4]), parts[4:], body)
        if len(parts) > 4 and parts[2] == "resolve":
            return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        raise _RefusedError(404, "NotFound", f"the stand-in does not know {self.command} {path}")

    def _may_write(self, repo_id: str) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token != TOKEN:
            raise _RefusedError(401, "", "Invalid username or password.")
        if not repo_id.startswith("user/"):
            raise _RefusedError(403, "", f'You don\'t have the rights to write to "{repo_id}"')

    def _repository(self, repo_id: str) -> Repository:
        if repo_id not in self.hub.repositories:
            raise _RefusedError(401, "RepoNotFound", "Repository not found")
        return self.hub.repositories[repo_id]

    def _at(self, repo_id: str, revision: str) -> tuple[str, dict[str, File]]:
        repository = self._repository(repo_id)
        oid = repository.resolve(revision)
        if oid is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid, repository.commits[oid]

    def _create(self, wanted: Mapping[str, Any]) -> None:
        repo_id = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        self._may_write(repo_id)
        if repo_id in self.hub.repositories:
            answer = {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo_id}"}
            return self._send(409, json.dumps(answer).encode())
        repository = Repository(private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        repository.commit({})
        self.hub.repositories[repo_id] = repository
        return self._json({"url": f"{self.hub.url}/{repo_id}"})

    def _lfs_action(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in self.hub.uploads:
            answer["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}}
        return answer

    def _model(self, repo_id: str, rest: list[str], body: bytes) -> None:
        verb = rest[0] if rest else "revision"
        revision = rest[1] if len(rest) > 1 else "main"
        if verb in ("preupload", "commit"):
            self._may_write(repo_id)
        if verb == "branch":
            self._may_write(repo_id)
            repository = self._repository(repo_id)
            repository.refs.setdefault(revision, repository.refs["main"])
            return self._json({})
        oid, files = self._at(repo_id, revision)
        if verb == "revision":
            siblings = [{"rfilename": path} for path in files]
            return self._json({"_id": "0", "id": repo_id, "sha": oid, "siblings": siblings})
        if verb == "tree":
            return self._json([_entry(path, file) for path, file in files.items()])
        if verb == "preupload":
            return self._json({"files": [_upload_mode(f, files) for f in json.loads(body)["files"]]})
        if verb == "commit":
            proposed = "create_pr=1" in self.path
            to = "refs/pr/1" if proposed else revision
            new = self._repository(repo_id).commit(self._changed(files, body), to)
            answer = {
                "success": True,
                "commitOid": new,
                "commitUrl": f"{self.hub.url}/{repo_id}/commit/{new}",
            }
            request = {"pullRequestUrl": f"{self.hub.url}/{repo_id}/discussions/1"} if proposed else {}
            return self._json(answer | request)
        raise _RefusedError(404, "NotFound", f"the stand-in does not know {verb}")

    def _changed(self, files: Mapping[str, File], body: bytes) -> dict[str, File]:
        result = dict(files)
        for line in filter(None, body.split(b"\n")):
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "file":
                result[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                result[value["path"]] = File(self.hub.uploads[value["oid"]], lfs=True)
            elif key == "deletedFile":
                del result[value["path"]]
        return result

    def _resolve(self, repo_id: str, revision: str, path: str) -> None:
        oid, files = self._at(repo_id, revision)
        if path not in files:
            raise _RefusedError(404, "EntryNotFound", "Entry not found", oid)
        file = files[path]
        etag = file.sha256 if file.lfs else file.git_sha
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "X-Linked-Size": str(len(file.data))}
        if file.lfs:
            headers["X-Linked-Etag"] = f'"{etag}"'
        self._send(200, file.data, headers)


def _entry(path: str, file: File) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(file.data), "oid": file.git_sha}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": 130}
    return entry


def _upload_mode(wanted: Mapping[str, Any], files: Mapping[str, File]) -> dict[str, Any]:
    path = wanted["path"]
    known = files.get(path)
    return {
        "path": path,
        "uploadMode": "lfs" if wanted["size"] >= LFS_FROM else "regular",
        "shouldIgnore": False,
        "oid": known and (known.sha256 if known.lfs else known.git_sha),
    }


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """Runs a stand-in on a free port of 127.0.0.1 while the block runs."""
    hub = StandInHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

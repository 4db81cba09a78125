"""A Hub on this machine, for tests: the real huggingface_hub client talks real HTTP to it, on loopback.

It answers what `huggingface_hub` 2.4 asks when it creates, pushes to, lists, tags and pulls from a repository, in the Hub's own
words for refusals, and it can be told to misbehave (`Hub.fault`). Everything is in memory. Large files go through git-lfs, whole
or in parts; xet is off (`HF_HUB_DISABLE_XET`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

NAME = r"([\w.-]+/[\w.-]+)"
KIND = r"/api/(models|datasets|spaces)"


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Blob:
    """A file's bytes and whether git-lfs holds them."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()
        )

    @property
    def oid(self) -> str:
        return git_oid(self.pointer if self.lfs else self.content)

    def entry(self, path: str) -> dict[str, object]:
        told: dict[str, object] = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid}
        if self.lfs:
            told["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return told


@dataclass
class Repository:
    """Commits (id → files), branches, tags; the first commit holds `.gitattributes`.

    Attributes:
        gated: its owner asks for terms to be accepted; everybody may read what is there, not the files.
        accepted: who has.
    """

    kind: str = "models"
    private: bool = False
    gated: bool = False
    accepted: frozenset[str] = frozenset()
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    requests: dict[str, tuple[str, str]] = field(default_factory=dict)

    def commit(self, files: dict[str, Blob], title: str, ref: str = "main") -> str:
        text = json.dumps([len(self.commits), title, {name: blob.oid for name, blob in sorted(files.items())}])
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid], self.refs[ref] = dict(files), oid
        self.titles.append(title)
        return oid

    def resolve(self, revision: str) -> str | None:
        known = self.refs | self.tags | {oid: oid for oid in self.commits}
        return known.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        """Of the main branch."""
        return {name: blob.content for name, blob in self.commits[self.refs["main"]].items()}


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match.

    Attributes:
        match: a pattern of `METHOD /path`.
        status: answered instead (`after`: the change is made first, its answer is this).
        drop: the connection ends without an answer (`after`: the change is made first).
        cut: so many bytes of the body are sent, then the connection ends.
        corrupt: one bit of the body is another.
        short: the body is whole and its last byte is missing, as is its length.
        delay: seconds before the answer.
        read: so many bytes of the request's body are read, then the connection ends.
        html: the body is a page, not JSON.
    """

    match: str
    status: int = 0
    after: bool = False
    drop: bool = False
    cut: int = -1
    corrupt: bool = False
    short: bool = False
    delay: float = 0.0
    read: int = -1
    html: bool = False
    times: int = 1


class Hub:
    """The state of the server.

    Args:
        parts: files above so many bytes are uploaded in parts of this size.
    """

    def __init__(self, parts: int | None = None) -> None:
        self.tokens = {
            "hf_goodgoodgoodgoodgood": ("alice", "write"),
            "hf_readreadreadreadread": ("alice", "read"),
            "hf_bobbobbobbobbobbobbob": ("bob", "write"),
            "hf_memememememememememe": ("me", "write"),
        }
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.part_size = parts
        self.log: list[str] = []
        self.bodies: list[bytes] = []
        self.faults: list[Fault] = []
        self.before_commit: Callable[[], None] | None = None
        self.lock = threading.RLock()

    def fault(self, match: str, **what) -> None:
        self.faults.append(Fault(match, **what))

    def put(self, name: str, files: dict[str, bytes], *, kind: str = "models", **what) -> Repository:
        """Makes a repository that holds these files."""
        repository = Repository(kind, **what)
        repository.commit({n: Blob(c, n.endswith(".safetensors")) for n, c in files.items()}, "made")
        self.repositories[kind, name] = repository
        return repository

    def __getitem__(self, name: str) -> Repository:
        return self.repositories["models", name]

    def __contains__(self, name: str) -> bool:
        return ("models", name) in self.repositories

    def reset(self) -> None:
        for held in (self.repositories, self.lfs, self.parts, self.log, self.bodies, self.faults):
            held.clear()
        self.before_commit, self.part_size = None, None

    def take(self, key: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.match, key):
                    fault.times -= 1
                    return fault
        return None


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass
class Answer:
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


def as_json(value: object, **headers: str) -> Answer:
    return Answer(json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def go(self) -> None:
        split = urlsplit(self.path)
        key = f"{self.command} {unquote(split.path)}"
        fault = self.hub.take(key)
        body = self.rfile.read(fault.read) if fault and fault.read >= 0 else self.read_body()
        with self.hub.lock:
            self.hub.log.append(key)
            self.hub.bodies.append(body)
        if fault and fault.read >= 0:
            return self.hang_up()
        if fault:
            time.sleep(fault.delay)
        if fault and not fault.after and (fault.drop or fault.status):
            return self.misbehave(fault)
        try:
            answer = self.route(key, parse_qs(split.query), body)
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message, **({"X-Error-Code": refusal.code} if refusal.code else {})}
            answer = Answer(json.dumps({"error": refusal.message}).encode(), headers, refusal.status)
        if fault and fault.after:
            return self.misbehave(fault)
        self.reply(answer, fault)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = go

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def misbehave(self, fault: Fault) -> None:
        if fault.drop:
            return self.hang_up()
        page = b"<html>trouble</html>" if fault.html else b'{"error": "trouble of the server"}'
        kind = "text/html" if fault.html else "application/json"
        self.reply(Answer(page, {"Content-Type": kind}, fault.status), None)

    def hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def reply(self, answer: Answer, fault: Fault | None) -> None:
        body = answer.body
        if fault and fault.corrupt and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault and fault.short:
            body = body[:-1]
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.cut >= 0:
            self.wfile.write(body[: fault.cut])
            self.wfile.flush()
            return self.hang_up()
        self.wfile.write(body)

    # ------------------------------------------------------------------------------------------ who may what
    def who(self) -> tuple[str, str] | None:
        given = self.headers.get("Authorization", "")
        if not given:
            return None
        if (found := self.hub.tokens.get(given.removeprefix("Bearer "))) is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return found

    def repository(
        self, kind: str, name: str, *, write: bool = False, pr: bool = False, files: bool = False
    ) -> Repository:
        who, found = self.who(), self.hub.repositories.get((kind, name))
        if found is None or (found.private and (who is None or not name.startswith(who[0] + "/"))):
            raise Refusal(404 if who else 401, "Repository not found", "RepoNotFound")
        if found.gated and who is None:
            raise Refusal(401, "Access to this model is restricted", "GatedRepo")
        if found.gated and who[0] not in found.accepted and files:
            told = f"Access to model {name} is restricted and you are not in the authorized list."
            raise Refusal(403, told, "GatedRepo")
        if write and (who is None or (not pr and (who[1] != "write" or not name.startswith(who[0] + "/")))):
            raise Refusal(403 if who else 401, "You don't have the rights to do this")
        return found

    def files(self, repository: Repository, revision: str) -> tuple[str, dict[str, Blob]]:
        if (oid := repository.resolve(revision)) is None:
            raise Refusal(404, "Invalid rev id", "RevisionNotFound")
        return oid, repository.commits[oid]

    # ------------------------------------------------------------------------------------------ routes
    def route(self, key: str, query: dict[str, list[str]], body: bytes) -> Answer:
        for pattern, handler in ROUTES:
            if match := re.fullmatch(pattern, key):
                return handler(self, query, body, *match.groups())
        raise Refusal(404, f"no such route {key}")

    def whoami(self, query, body) -> Answer:
        if (who := self.who()) is None:
            raise Refusal(401, "Invalid username or password.")
        return as_json({"type": "user", "name": who[0], "orgs": [], "auth": {"accessToken": {"role": who[1]}}})

    def create(self, query, body) -> Answer:
        values, who = json.loads(body), self.who()
        if who is None:
            raise Refusal(401, "Invalid username or password.")
        owner = values.get("organization") or who[0]
        if who[1] != "write" or owner != who[0]:
            raise Refusal(403, "You don't have the rights to create a model under the namespace")
        name = f"{owner}/{values['name']}"
        if ("models", name) in self.hub.repositories:
            answer = as_json({"error": "You already created this model repo", "url": f"{self.base}/{name}"})
            answer.status = 409
            return answer
        private = values.get("visibility") == "private" or bool(values.get("private"))
        repository = Repository("models", private)
        attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        repository.commit({".gitattributes": Blob(attributes, False)}, "initial commit")
        self.hub.repositories["models", name] = repository
        return as_json({"url": f"{self.base}/{name}", "name": name, "id": name})

    def info(self, query, body, kind, name, revision="main") -> Answer:
        repository = self.repository(kind, name)
        oid, files = self.files(repository, revision)
        blobs = "blobs" in query
        card = files.get("README.md")
        siblings = [{"rfilename": n, **(self.sibling(n, blob) if blobs else {})} for n, blob in files.items()]
        return as_json(
            {"id": name, "modelId": name, "sha": oid, "private": repository.private, "gated": repository.gated, "tags": [],
             "downloads": 0, "likes": 0, "siblings": siblings, "cardData": front(card.content.decode()) if card else None}
        )  # fmt: skip

    @staticmethod
    def sibling(name: str, blob: Blob) -> dict[str, object]:
        entry = blob.entry(name)
        lfs = {"lfs": {"sha256": blob.sha256, **entry["lfs"]}} if blob.lfs else {}  # type: ignore[dict-item]
        return {"size": entry["size"], "blobId": entry["oid"], **lfs}

    def tree(self, query, body, kind, name, revision, below="") -> Answer:
        _, files = self.files(self.repository(kind, name), revision)
        start = (below or "").strip("/")
        return as_json([blob.entry(n) for n, blob in files.items() if n.startswith(start)])

    def list_refs(self, query, body, kind, name) -> Answer:
        repository = self.repository(kind, name)
        branches = {n: oid for n, oid in repository.refs.items() if not n.startswith("refs/pr/")}
        told = {
            what: [{"name": n, "ref": f"refs/{path}/{n}", "targetCommit": oid} for n, oid in held.items()]
            for what, path, held in (("branches", "heads", branches), ("tags", "tags", repository.tags))
        }
        return as_json({**told, "converts": []})

    def discussions(self, query, body, kind, name) -> Answer:
        """Pull requests only, by their authors."""
        repository = self.repository(kind, name)
        told = [
            {"num": int(ref.rpartition("/")[2]), "title": title, "status": "open", "isPullRequest": True,
             "author": {"name": author}, "createdAt": "2026-11-25T00:00:00.000Z",
             "repo": {"name": name, "type": kind.removesuffix("s")}}
            for ref, (author, title) in repository.requests.items()
            if query.get("author", [author]) == [author]
        ]  # fmt: skip
        return as_json({"discussions": told, "count": len(told), "start": 0})

    def validate(self, query, body) -> Answer:
        if faults := card_faults(json.loads(body)["content"]):
            answer = as_json({"errors": [{"message": fault} for fault in faults], "warnings": []})
            answer.status = 400
            return answer
        return as_json({"errors": [], "warnings": []})

    def preupload(self, query, body, kind, name, revision) -> Answer:
        repository = self.repository(kind, name, write=True, pr="create_pr" in query)
        _, files = self.files(repository, revision)
        told = []
        for entry in json.loads(body)["files"]:
            lfs = entry["size"] > 10_000_000 or entry["path"].endswith(".safetensors")
            old = files.get(entry["path"])
            oid = None if old is None else (old.sha256 if old.lfs else old.oid)
            mode = "lfs" if lfs else "regular"
            told.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return as_json({"files": told})

    def lfs_batch(self, query, body, name) -> Answer:
        self.repository("models", name, write=True, pr=True)
        told = [self.lfs_actions(entry) for entry in json.loads(body)["objects"]]
        return as_json({"transfer": "basic", "objects": told}, **{"Content-Type": "application/vnd.git-lfs+json"})

    def lfs_actions(self, entry: dict[str, object]) -> dict[str, object]:
        oid, size, part = entry["oid"], int(entry["size"]), self.hub.part_size  # type: ignore[call-overload]
        if oid in self.hub.lfs:
            return dict(entry)
        upload: dict[str, object] = {"href": f"{self.base}/_lfs/{oid}", "header": {}}
        if part and size > part:
            urls = {str(i + 1): f"{self.base}/_part/{oid}/{i + 1}" for i in range(-(-size // part))}
            upload = {"href": f"{self.base}/_complete/{oid}", "header": {"chunk_size": str(part), **urls}}
        return {**entry, "actions": {"upload": upload, "verify": {"href": f"{self.base}/_verify/{oid}"}}}

    def lfs_put(self, query, body, oid) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, "the content does not have this sha256")
        self.hub.lfs[oid] = body
        return Answer()

    def part_put(self, query, body, oid, number) -> Answer:
        self.hub.parts[oid, int(number)] = body
        return Answer(b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def complete(self, query, body, oid) -> Answer:
        numbers = [part["partNumber"] for part in json.loads(body)["parts"]]
        return self.lfs_put(query, b"".join(self.hub.parts[oid, number] for number in numbers), oid)

    def verify(self, query, body, oid) -> Answer:
        if oid not in self.hub.lfs:
            raise Refusal(404, "missing object")
        return as_json({})

    def commit(self, query, body, kind, name, revision) -> Answer:
        pr = "create_pr" in query
        repository = self.repository(kind, name, write=True, pr=pr)
        if self.hub.before_commit:
            self.hub.before_commit()
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        head = lines[0]["value"]
        with self.hub.lock:  # all or nothing
            parent, files = self.files(repository, revision)
            if head.get("parentCommit") and not parent.startswith(head["parentCommit"]):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            changed = self.changed(files, lines[1:])
            ref = f"refs/pr/{len(repository.refs)}" if pr else revision
            oid = repository.commit(changed, head["summary"], ref)
            if pr:
                repository.requests[ref] = (self.who()[0], head["summary"])
        told = {"success": True, "commitOid": oid, "commitUrl": f"{self.base}/{name}/commit/{oid}", "hookOutput": ""}
        if pr:
            told["pullRequestUrl"] = f"{self.base}/{name}/discussions/{ref.rpartition('/')[2]}"
        return as_json(told)

    def changed(self, files: dict[str, Blob], lines: list[dict]) -> dict[str, Blob]:
        files = dict(files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise Refusal(400, f"LFS object missing: {value['path']}")
                files[value["path"]] = Blob(self.hub.lfs[value["oid"]], True)
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
            else:
                raise Refusal(400, f"unknown operation {line['key']}")
        return files

    def tag(self, query, body, kind, name, revision) -> Answer:
        repository = self.repository(kind, name, write=True)
        oid, _ = self.files(repository, revision)
        wanted = json.loads(body)["tag"]
        if wanted in repository.tags:
            raise Refusal(409, "Tag already exists")
        repository.tags[wanted] = oid
        return as_json({})

    def resolve(self, query, body, name, revision, path) -> Answer:
        oid, files = self.files(self.repository("models", name, files=True), revision)
        if (blob := files.get(path)) is None:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        etag = blob.sha256 if blob.lfs else blob.oid
        headers = {"X-Repo-Commit": oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(blob.content))}
        if self.command == "HEAD":
            return Answer(b"", {**headers, "Content-Length": str(len(blob.content))})
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, total = int(match[1]), len(blob.content)
            return Answer(blob.content[start:], {**headers, "Content-Range": f"bytes {start}-{total - 1}/{total}"}, 206)
        return Answer(blob.content, headers)


ROUTES = [
    (r"GET /api/whoami-v2", Handler.whoami),
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"GET {KIND}/{NAME}/revision/(.+)", Handler.info),
    (rf"GET {KIND}/{NAME}/tree/([^/]+)(/.*)?", Handler.tree),
    (rf"GET {KIND}/{NAME}/refs", Handler.list_refs),
    (rf"GET {KIND}/{NAME}/discussions", Handler.discussions),
    (rf"POST {KIND}/{NAME}/preupload/(.+)", Handler.preupload),
    (rf"POST {KIND}/{NAME}/commit/(.+)", Handler.commit),
    (rf"POST {KIND}/{NAME}/tag/(.+)", Handler.tag),
    (rf"GET {KIND}/{NAME}", Handler.info),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (r"PUT /_lfs/(\w+)", Handler.lfs_put),
    (r"PUT /_part/(\w+)/(\d+)", Handler.part_put),
    (r"POST /_complete/(\w+)", Handler.complete),
    (r"POST /_verify/(\w+)", Handler.verify),
    (rf"(?:HEAD|GET) /{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
]


# ---------------------------------------------------------------------------------------------- the card's front matter
def front(text: str) -> dict:
    match = re.match(r"---\n(.*?)\n---", text, re.S)
    try:
        return (yaml.safe_load(match[1]) or {}) if match else {}
    except yaml.YAMLError:
        return {}


def card_faults(text: str) -> list[str]:
    """What the Hub's validation of model cards refuses, as its documentation says (`model-cards.md`)."""
    from adapt.licences import IDS

    match = re.match(r"---\n(.*?)\n---\n", text, re.S)
    if match is None:
        return []
    try:
        values = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    found = []
    if "license" in values and values["license"] not in IDS:
        found.append('"license" must be one of the known identifiers')
    if values.get("license") == "other" and not values.get("license_name"):
        found.append('"license_name" is needed with "other"')
    for name in ("tags", "widget"):
        if name in values and not isinstance(values[name], list):
            found.append(f'"{name}" must be an array')
    if not all(isinstance(tag, str) for tag in values.get("tags", ())):
        found.append('"tags" must hold strings')
    for name in ("library_name", "pipeline_tag", "instance_prompt"):
        if name in values and not isinstance(values[name], str):
            found.append(f'"{name}" must be a string')
    if "base_model" in values and not re.fullmatch(NAME, str(values["base_model"])):
        found.append('"base_model" must be a Hub id')
    if values.get("base_model_relation") not in (None, "adapter", "merge", "quantized", "finetune"):
        found.append('"base_model_relation" is unknown')
    for entry in values.get("widget") or ():
        if not isinstance(entry.get("text"), str) or not isinstance(entry.get("output", {}).get("url", ""), str):
            found.append('"widget" entries need text and output.url')
    return found


def serve(hub: Hub) -> ThreadingHTTPServer:
    """Starts it on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.hub = hub  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server

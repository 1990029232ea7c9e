"""The HTTP side: what it says and what it never says."""

import json
import socket
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("httpx", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient

from hifispeech.errors import HifispeechError
from hifispeech.listening import definition as test
from hifispeech.listening.server import STATIC, create_app
from hifispeech.listening.store import Store

HOME = "http://127.0.0.1"


def client_of(folder: Path, **words: Any) -> TestClient:
    return TestClient(create_app(folder, **words), base_url=HOME)


def secrets_of(folder: Path) -> list[str]:
    """All that must not reach a listener: systems, kinds of stimulus, items, conditions, files, the place."""
    made = test.load(folder)
    names = [*made.systems, "anchor", "hidden", made.id, str(folder), folder.name + "/"]
    for item in made.items:
        names += [item.name, item.name.split("/")[-1], *item.files.values()]
        names += [name.removesuffix(".wav") for name in item.files.values()]
    return names


def take_part(client: TestClient, listener: str) -> list[Any]:
    """Do the whole test; every response on the way."""
    seen = [client.get("/"), client.get("/api/test"), *(client.get(f"/static/{name}") for name in STATIC)]
    seen.append(client.post("/api/sessions", json={"listener": listener}))
    state = seen[-1].json()
    while state["slots"]:
        path = f"/api/sessions/{state['session']}/questions/{state['done'] + 1}"
        seen += [client.get(f"{path}/{slot}") for slot in state["slots"]]
        body = (
            {"choice": "a"} if state["kind"] == "abx" else {"ratings": dict.fromkeys(state["slots"][1:], 50)}
        )
        seen.append(client.put(path, json={**body, "seconds": 1.0}))
        state = seen[-1].json()
    assert all(response.status_code == 200 for response in seen)
    return seen


@pytest.mark.parametrize("kind", ["abx", "mushra"])
def test_nothing_tells_what_is_heard(kind: str, templates: Path, request: pytest.FixtureRequest) -> None:
    """No name in any address, header or body of a whole test; sounds differ in samples alone."""
    folder = request.getfixturevalue(f"{kind}_test")
    seen = take_part(client_of(folder), "anna")
    for response in seen:
        head = f"{response.url} {response.headers}".lower()
        body = response.content.decode("latin-1").lower()
        for name in secrets_of(folder):
            assert name.lower() not in head
            assert name.lower() not in body or response.headers["content-type"].startswith("text/"), name
        assert not {"etag", "last-modified", "content-disposition", "server"} & {*response.headers}
        assert response.headers["cache-control"] == "no-store"
    sounds = [response for response in seen if response.headers["content-type"] == "audio/wav"]
    questions: dict[str, list[Any]] = {}
    for response in sounds:
        questions.setdefault(str(response.url).rsplit("/", 1)[0], []).append(response)
    assert len(questions) == 4
    for group in questions.values():
        heads = {response.content[: response.content.index(b"data") + 8] for response in group}
        assert len(heads) == 1
        assert len({json.dumps({**response.headers, "date": ""}) for response in group}) == 1
        samples = {response.content for response in group}
        assert len(samples) == (3 if kind == "abx" else 5)  # MUSHRA: the reference is there twice


def test_static_files_know_no_system(abx_test: Path) -> None:
    """They are the same for every test, so it is enough that these words are not in them."""
    client = client_of(abx_test)
    text = "".join(client.get(f"/static/{name}").text for name in STATIC) + client.get("/").text
    assert all(name not in text for name in ("quartz", "basalt", "clip0", "4000/"))


def test_what_is_heard_is_what_was_asked(abx_test: Path) -> None:
    """The page's a, b and x are the files of the plan."""
    made = test.load(abx_test)
    client = client_of(abx_test)
    token = client.post("/api/sessions", json={"listener": "anna"}).json()["session"]
    for number, trial in enumerate(made.plan(0), 1):
        files = made.items[trial.item].files
        for slot, stimulus in zip("xab", ("reference", *trial.stimuli), strict=True):
            heard = client.get(f"/api/sessions/{token}/questions/{number}/{slot}").content
            assert heard == (abx_test / "audio" / files[stimulus]).read_bytes()


def test_answers_reach_the_store(abx_test: Path) -> None:
    take_part(client_of(abx_test), "Anna")
    store = Store(abx_test, test.load(abx_test))
    assert [(answer.listener, answer.number, answer.value) for answer in store.answers()] == [
        ("Anna", number, "a") for number in range(1, 5)
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static/abx.js%00.wav",
        "/static/index.html",
        "/../../etc/passwd",
        "/test.json",
        "/audio/",
        "/openapi.json",
        "/docs",
        "/api/sessions/nobody",
        "/api/sessions/TOKEN/questions/1/quartz",
        "/api/sessions/TOKEN/questions/1/..%2f..%2ftest.json",
        "/api/sessions/TOKEN/questions/5/x",
        "/api/sessions/TOKEN/questions/0/x",
        "/api/sessions/TOKEN/questions/99999999999999999999/x",
    ],
)
def test_no_address_leads_out_of_the_test(abx_test: Path, serve: Callable[[Path], Any], path: str) -> None:
    """Sent as it is, over a socket of our own: clients tidy addresses up."""
    client = client_of(abx_test)
    token = client.post("/api/sessions", json={"listener": "anna"}).json()["session"]
    answer = client.get(path.replace("TOKEN", token))
    assert answer.status_code in (404, 422)
    assert {*answer.json()["error"]} == {"code", "message"}
    assert "root:" not in answer.text


def test_raw_traversal(abx_test: Path, serve: Callable[[Path], Any]) -> None:
    """Sent as they are over a socket, since clients tidy addresses up before they send them."""
    server = serve(abx_test)
    for path in (
        "/static/../../server.py",
        "/static/..%2f..%2f..%2ftest.json",
        "//etc/passwd",
        "/..//test.json",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 404"), answer
        assert b"quartz" not in answer


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("abx", {"choice": "x", "seconds": 1}),
        ("abx", {"choice": "quartz", "seconds": 1}),
        ("abx", {"choice": "a"}),
        ("abx", {"choice": "a", "seconds": -1}),
        ("abx", {"choice": "a", "seconds": "NaN"}),
        ("abx", {"ratings": {"1": 3}, "seconds": 1}),
        ("abx", {}),
        ("abx", []),
        ("mushra", {"choice": "a", "seconds": 1}),
        ("mushra", {"ratings": {"1": 3}, "seconds": 1}),
        ("mushra", {"ratings": {"1": 3, "2": 3, "3": 3, "4": 3, "5": 101}, "seconds": 1}),
        ("mushra", {"ratings": {"1": 3, "2": 3, "3": 3, "4": 3, "5": 1.5}, "seconds": 1}),
        ("mushra", {"ratings": {"1": 3, "2": 3, "3": 3, "4": 4, "5": 5, "6": 6}, "seconds": 1}),
    ],
)
def test_bad_answers_are_refused(kind: str, body: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{kind}_test")
    client = client_of(folder)
    token = client.post("/api/sessions", json={"listener": "anna"}).json()["session"]
    answer = client.put(f"/api/sessions/{token}/questions/1", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"]
    assert client.get(f"/api/sessions/{token}").json()["done"] == 0


def test_order_and_repetition(abx_test: Path) -> None:
    client = client_of(abx_test)
    token = client.post("/api/sessions", json={"listener": "anna"}).json()["session"]

    def put(number: int, choice: str) -> int:
        path = f"/api/sessions/{token}/questions/{number}"
        return client.put(path, json={"choice": choice, "seconds": 1}).status_code

    assert put(2, "a") == 409
    assert put(1, "a") == 200
    assert put(1, "a") == 200
    assert put(1, "b") == 409
    assert put(9, "a") == 404


def test_bad_names(abx_test: Path) -> None:
    client = client_of(abx_test)
    for name in ("", "=cmd", "x" * 300):
        answer = client.post("/api/sessions", json={"listener": name})
        assert answer.status_code == 422
        assert answer.json()["error"]["message"]


def test_foreign_host_names_are_refused(abx_test: Path) -> None:
    """A page elsewhere whose name was made to mean 127.0.0.1 gets nothing."""
    assert client_of(abx_test).get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client_of(abx_test).get("/", headers={"Host": "localhost:8766"}).status_code == 200
    assert client_of(abx_test, hosts=["*"]).get("/", headers={"Host": "lab.example"}).status_code == 200


def test_many_at_once(abx_test: Path) -> None:
    """Eight listeners in eight threads: all answers are kept, every plan is its own."""
    client = client_of(abx_test)
    crowd = [threading.Thread(target=take_part, args=(client, f"listener {k}")) for k in range(8)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    store = Store(abx_test, test.load(abx_test))
    assert len(store.answers()) == 8 * 4
    assert sorted(session.listener for session in store.sessions()) == list(range(8))


def test_no_test_no_server(tmp_path: Path) -> None:
    with pytest.raises(HifispeechError, match="is no listening test"):
        create_app(tmp_path)


def test_ctrl_c_ends_the_server(abx_test: Path, serve: Callable[[Path], Any]) -> None:
    server = serve(abx_test)
    with urllib.request.urlopen(server.address, timeout=300) as answer:  # it is up
        assert answer.status == 200
    assert server.interrupt() == 130

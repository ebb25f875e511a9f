"""Fetching: from a server that is really there, checked, whole or not at all."""

import functools
import hashlib
import http.server
import io
import subprocess
import sys
import tarfile
import threading

import pytest

from repro.data import DataError, check, read_verified
from repro.data import fetch as fetching
from repro.data.fetch import Archive, fetch
from repro.data.files import fetched_root, note_of
from repro.data.tabular_others import HEPMASS_TRAIN

CONTENTS = {"data/hepmass/1000_train.csv": b"label,f0\n1,2\n", "data/hepmass/1000_test.csv": b"label,f0,x\n1,2,3\n"}


def tar(contents):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def serve(tmp_path):
    """Serve bytes as an archive; gives its description."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def serve(raw):
        (folder / "data.tar.gz").write_bytes(raw)
        return Archive(f"http://127.0.0.1:{server.server_port}/data.tar.gz", hashlib.md5(raw).hexdigest())

    yield serve
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_set_is_fetched_once_and_then_verified_at_every_read(serve):
    archive = serve(tar({"data/other": b"x", **CONTENTS}))
    paths = fetch("hepmass", archive, progress=False)
    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())
    assert read_verified(HEPMASS_TRAIN) == CONTENTS["data/hepmass/1000_train.csv"]
    assert not list(fetched_root().rglob("*.partial"))
    assert fetch("hepmass", Archive("http://127.0.0.1:1/none", "0" * 32), progress=False) == paths
    paths[0].write_bytes(b"label,f0\n1,3\n")
    assert check(HEPMASS_TRAIN).status == "corrupt"
    fetch("hepmass", archive, progress=False)
    assert check(HEPMASS_TRAIN).status == "ok"


def test_another_archive_is_refused_and_leaves_nothing(serve):
    archive = serve(tar(CONTENTS))
    with pytest.raises(DataError, match="can't download") as caught:
        fetch("hepmass", Archive(archive.url, "0" * 32), progress=False)
    assert "\n" not in str(caught.value)
    assert check(HEPMASS_TRAIN).status == "absent"
    assert [path for path in fetched_root().rglob("*") if path.is_file()] == []


def test_an_archive_without_the_set_or_cut_short_is_refused(serve):
    with pytest.raises(DataError, match=r"has no data/hepmass/1000_test.csv"):
        fetch("hepmass", serve(tar({"data/hepmass/1000_train.csv": b"a"})), progress=False)
    raw = tar({name: bytes(range(256)) * 400 for name in CONTENTS})
    with pytest.raises(DataError, match="can't be read as a tar archive"):
        fetch("hepmass", serve(raw[: len(raw) // 2]), progress=False)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a link to /etc/passwd"),
        (tarfile.LNKTYPE, "a link to /etc/passwd"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.DIRTYPE, "a folder"),
        (tarfile.CHRTYPE, "of type"),
    ],
)
def test_a_member_that_is_no_file_is_one_line_and_leaves_nothing(serve, kind, words):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        entry = tarfile.TarInfo("data/hepmass/1000_train.csv")
        entry.type, entry.linkname = kind, "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
        archive.addfile(entry)
    with pytest.raises(
        DataError, match=rf"its member data/hepmass/1000_train.csv must be a file; it is {words}"
    ) as caught:
        fetch("hepmass", serve(file.getvalue()), progress=False)
    assert "\n" not in str(caught.value)
    assert check(HEPMASS_TRAIN).status == "absent"


FETCH = """
import sys
from repro.data.fetch import Archive, fetch
print(*fetch("hepmass", Archive(*sys.argv[1:]), progress=False))
"""


def start_fetch(archive):
    command = [sys.executable, "-c", FETCH, archive.url, archive.md5]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_at_once_each_get_the_files(serve):
    archive = serve(tar({"data/other": bytes(10**6), **CONTENTS}))
    processes = [start_fetch(archive) for _ in range(4)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert len(out.split()) == len(CONTENTS)
    assert check(HEPMASS_TRAIN).status == "ok"


def test_what_a_killed_fetch_left_is_deleted_by_the_next_one(serve):
    """A partial download, as pooch names it, and a half-written file; the verified archive stays."""
    archive = serve(tar(CONTENTS))
    expected = fetch("hepmass", archive, progress=False)
    files = {path for path in fetched_root().rglob("*") if path.is_file()}
    (fetched_root() / "archives" / "tmpab3x_k1").write_bytes(b"half a downlo")
    expected[0].with_name(expected[0].name + ".partial").write_bytes(b"half a fi")
    expected[1].unlink()
    assert fetch("hepmass", archive, progress=False) == expected
    assert {path for path in fetched_root().rglob("*") if path.is_file()} == files


def test_an_extraction_that_dies_leaves_no_file_and_the_next_one_goes_on(serve, monkeypatch):
    archive = serve(tar(CONTENTS))

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching.os, "fsync", die)
        with pytest.raises(KeyboardInterrupt):
            fetch("hepmass", archive, progress=False)
    assert check(HEPMASS_TRAIN).status == "absent"
    paths = fetch("hepmass", archive, progress=False)
    assert all(note_of(path).exists() for path in paths)


def test_a_server_that_is_not_there_is_one_line():
    with pytest.raises(DataError, match="can't download") as caught:
        fetch("gas", Archive("http://127.0.0.1:1/data.tar.gz", "0" * 32), progress=False)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_refused_with_those_that_are_known(call):
    with pytest.raises(ValueError, match="name must be one of: gas, hepmass, miniboone, bsds300; got 'power'"):
        fetch("power")
    code, _, err = call("data", "fetch", "power")
    assert (code, err) == (1, "error: data fetch: power ships with the package, there is nothing to fetch\n")
    code, _, err = call("data", "fetch", "nothing")
    assert code == 2
    assert err == "error: data fetch: name must be one of: gas, hepmass, miniboone, bsds300; got 'nothing'\n"

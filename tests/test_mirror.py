"""The mirror against servers that cut, lie, refuse and vanish."""

import hashlib
import json
import os
import socket
import time
from datetime import UTC, date, datetime, timedelta

import pytest
from servers import Site, serving

from pipeline.errors import ConfigError, NetworkError, OutputError
from pipeline.lock import hold
from pipeline.mirror import list_files, mirror, parse_listing
from pipeline.web import Client, Patience

ONE, TWO, THREE = "pubmed26n0001.xml.gz", "pubmed26n0002.xml.gz", "pubmed26n0003.xml.gz"
CONTENT = {ONE: b"one " * 5_000, TWO: bytes(range(256)) * 2_000, THREE: b"three"}
WAITS = Patience(tries=3, pause=0.01, longest=5, timeout=5)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def site():
    site = Site()
    site.add("baseline", ONE, CONTENT[ONE])
    site.add("baseline", TWO, CONTENT[TWO])
    site.add("updatefiles", THREE, CONTENT[THREE])
    site.files["/updatefiles/README.txt"] = b"read me"
    with serving(site):
        yield site


def run(folder, site, **options):
    return mirror(folder, url=site.url, client=Client(WAITS), **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def whole(folder, *wanted):
    """The files are there, right, each with a sidecar that `md5sum --check` reads, and nothing else is."""
    assert names(folder) == sorted([*wanted, *(f"{name}.md5" for name in wanted)])
    for name in wanted:
        assert (folder / name).read_bytes() == CONTENT[name]
        assert (folder / f"{name}.md5").read_text() == f"{hashlib.md5(CONTENT[name]).hexdigest()}  {name}\n"


def test_all_files_then_nothing_more(site, tmp_path):
    done = run(tmp_path / "pubmed", site)
    assert done.downloaded == [ONE, TWO, THREE]
    assert (done.present, done.failed, done.latest) == (0, {}, THREE)
    assert done.bytes == sum(map(len, CONTENT.values()))
    whole(tmp_path / "pubmed", ONE, TWO, THREE)
    assert all(one.agent.startswith("hepatag/") for one in site.requests)
    site.requests.clear()
    again = run(tmp_path / "pubmed", site)
    assert (again.downloaded, again.present) == ([], 3)
    assert [one.path for one in site.requests] == ["/baseline/", "/updatefiles/"]


def test_a_cut_download_goes_on(site, tmp_path):
    site.faults[f"/baseline/{TWO}"] = ["cut 1000", "cut 70000", "cut 5", "cut 1", "cut 300000"]
    done = run(tmp_path, site)
    assert not done.failed
    whole(tmp_path, ONE, TWO, THREE)
    assert [one.start for one in site.asked(f"/baseline/{TWO}")] == [None, 1000, 71000, 71005, 71006, 371006]


def test_a_server_that_ignores_range(site, tmp_path):
    site.faults[f"/baseline/{TWO}"] = ["cut 1000", "no range cut 500", "no range"]
    assert not run(tmp_path, site).failed
    whole(tmp_path, ONE, TWO, THREE)


def test_a_server_that_sends_another_range(site, tmp_path):
    site.faults[f"/baseline/{TWO}"] = ["cut 1000", "other range"]
    assert not run(tmp_path, site).failed
    whole(tmp_path, ONE, TWO, THREE)


def test_a_later_run_goes_on_from_the_part(site, tmp_path):
    (tmp_path / f"{TWO}.part").write_bytes(CONTENT[TWO][:200_000])
    assert not run(tmp_path, site).failed
    whole(tmp_path, ONE, TWO, THREE)
    assert [one.start for one in site.asked(f"/baseline/{TWO}")] == [200_000]


@pytest.mark.parametrize("part", [b"of an older file", CONTENT[TWO] + b"and more"])
def test_a_part_that_does_not_fit_starts_anew(site, tmp_path, part):
    (tmp_path / f"{TWO}.part").write_bytes(part)
    assert not run(tmp_path, site).failed
    whole(tmp_path, ONE, TWO, THREE)
    assert [one.start for one in site.asked(f"/baseline/{TWO}")] == [len(part), None]


def test_a_whole_part_needs_no_download(site, tmp_path):
    (tmp_path / f"{TWO}.part").write_bytes(CONTENT[TWO])
    assert not run(tmp_path, site).failed
    whole(tmp_path, ONE, TWO, THREE)


def test_a_wrong_md5_is_tried_twice_and_named(site, tmp_path):
    site.add("baseline", TWO, CONTENT[TWO], digest="0" * 32)
    done = run(tmp_path, site)
    assert list(done.failed) == [TWO]
    assert "0" * 32 in done.failed[TWO]
    assert hashlib.md5(CONTENT[TWO]).hexdigest() in done.failed[TWO]
    assert len(site.asked(f"/baseline/{TWO}")) == 2
    whole(tmp_path, ONE, THREE)


def test_a_sidecar_without_md5_or_without_itself(site, tmp_path):
    site.files[f"/baseline/{ONE}.md5"] = b"<html>try later</html>"
    del site.files[f"/baseline/{TWO}.md5"]
    done = run(tmp_path, site)
    assert list(done.failed) == [ONE, TWO]
    assert "HTTP 404" in done.failed[TWO]
    whole(tmp_path, THREE)


@pytest.mark.parametrize("fault", ["too long", "!too long", "!no range too long", "too short"])
def test_lies_about_the_length(site, tmp_path, fault):
    site.faults[f"/baseline/{TWO}"] = [fault]
    assert not run(tmp_path, site).failed
    whole(tmp_path, ONE, TWO, THREE)


def test_a_length_that_is_always_too_short(site, tmp_path):
    site.faults[f"/baseline/{TWO}"] = ["!too short"]
    assert list(run(tmp_path, site).failed) == [TWO]
    whole(tmp_path, ONE, THREE)


def test_retry_after_is_waited_for(site, tmp_path):
    site.faults[f"/baseline/{ONE}"] = ["429 after 1", "503"]
    said = []
    mirror(tmp_path, url=site.url, client=Client(WAITS, on_wait=said.append))
    first, second, _ = (one.at for one in site.asked(f"/baseline/{ONE}"))
    assert second - first >= 1
    assert "HTTP 429" in said[0]
    whole(tmp_path, ONE, TWO, THREE)


def test_retry_after_as_a_date(site, tmp_path):
    soon = datetime.now(UTC) + timedelta(seconds=2)
    site.faults[f"/baseline/{ONE}"] = [f"503 after {soon:%a, %d %b %Y %H:%M:%S} GMT"]
    assert not run(tmp_path, site, since="1").failed
    first, second = (one.at for one in site.asked(f"/baseline/{ONE}"))
    assert second - first > 0.5


def test_a_server_that_wants_much_quiet(site, tmp_path):
    site.faults["/baseline/"] = ["503 after 7200"]
    started = time.monotonic()
    with pytest.raises(NetworkError, match="7200 s of quiet"):
        run(tmp_path, site)
    assert time.monotonic() - started < 30


def test_errors_that_stay(site, tmp_path):
    site.faults[f"/baseline/{ONE}"] = ["!503"]
    done = run(tmp_path, site)
    assert "HTTP 503" in done.failed[ONE]
    assert "3 tries" in done.failed[ONE]
    assert len(site.asked(f"/baseline/{ONE}")) == WAITS.tries
    whole(tmp_path, TWO, THREE)


def test_a_server_that_vanishes(site, tmp_path):
    for number in range(4, 9):
        site.add("updatefiles", f"pubmed26n{number:04}.xml.gz", b"more")
        site.faults[f"/updatefiles/pubmed26n{number:04}.xml.gz.md5"] = ["!drop"]
    done = run(tmp_path, site)
    assert len(done.downloaded) == 3
    assert list(done.failed) == [f"pubmed26n000{number}.xml.gz" for number in (4, 5, 6)]
    assert done.not_tried == ["pubmed26n0007.xml.gz", "pubmed26n0008.xml.gz"]


def test_no_server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(NetworkError, match=rf"http://127.0.0.1:{port}/baseline/, found no connection \(3 tries\)"):
        mirror(tmp_path / "pubmed", url=f"http://me:secret@127.0.0.1:{port}/", client=Client(WAITS))
    assert not (tmp_path / "pubmed").exists()


def test_silence(tmp_path):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(NetworkError, match="silence"):
            Client(Patience(tries=1, timeout=0.1)).get(f"http://127.0.0.1:{deaf.getsockname()[1]}/")


@pytest.mark.parametrize("url", ["ftp.ncbi.nlm.nih.gov/pubmed", "ftp://ftp.ncbi.nlm.nih.gov/pubmed/", "http:///"])
def test_no_address(tmp_path, url):
    with pytest.raises(ConfigError, match="https://"):
        mirror(tmp_path, url=url, client=Client(WAITS))


def test_a_file_published_anew(site, tmp_path):
    run(tmp_path, site)
    today = f"{datetime.now(UTC):%Y-%m-%d} 10:00"
    site.dates |= {ONE: today, TWO: today}
    site.add("baseline", TWO, b"corrected")
    site.requests.clear()
    assert run(tmp_path, site).downloaded == [TWO]
    assert (tmp_path / TWO).read_bytes() == b"corrected"
    assert not site.asked(f"/baseline/{ONE}")
    assert len(site.asked(f"/baseline/{ONE}.md5")) == 1


def test_a_file_that_changed_here(site, tmp_path):
    run(tmp_path, site)
    (tmp_path / TWO).write_bytes(b"spoilt")
    later = time.time() + 5
    os.utime(tmp_path / TWO, (later, later))
    assert run(tmp_path, site).downloaded == [TWO]
    (tmp_path / ONE).unlink()
    assert run(tmp_path, site).downloaded == [ONE]
    whole(tmp_path, ONE, TWO, THREE)


def test_files_of_another_program(site, tmp_path):
    for name, content in ((ONE, CONTENT[ONE]), (TWO, b"cut")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / f"{name}.md5").write_bytes(site.files[f"/baseline/{name}.md5"])
    done = run(tmp_path, site)
    assert done.downloaded == [TWO, THREE]
    whole(tmp_path, ONE, TWO, THREE)


def test_dry_run_changes_nothing(site, tmp_path):
    done = run(tmp_path / "pubmed", site, dry_run=True)
    assert done.downloaded == [ONE, TWO, THREE]
    assert not (tmp_path / "pubmed").exists()
    assert len(site.requests) == 2


@pytest.mark.parametrize(
    ("since", "wanted"),
    [
        ("2", [TWO, THREE]), ("pubmed26n0003", [THREE]), (THREE, [THREE]), ("26n2", [TWO, THREE]), ("27n1", []),
        ("25n9999", [ONE, TWO, THREE]), ("2020-01-16", [THREE]), ("2020-01-15", [ONE, TWO, THREE]), ("2030-01-01", []),
    ],
)  # fmt: skip
def test_since(site, since, wanted):
    site.dates[THREE] = "2020-01-16 01:00"
    assert [one.name for one in list_files(Client(WAITS), site.url, since=since)] == wanted


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "20260131"])
def test_since_what(site, since):
    with pytest.raises(ConfigError, match="--since"):
        list_files(Client(WAITS), site.url, since=since)


def test_since_needs_dates(site):
    site.dates[TWO] = ""
    with pytest.raises(ConfigError, match="number"):
        list_files(Client(WAITS), site.url, since="2020-01-01")


def test_only_updates(site, tmp_path):
    assert run(tmp_path, site, only_updates=True).downloaded == [THREE]
    assert not site.asked("/baseline/")


def test_a_new_year(site, tmp_path):
    run(tmp_path, site)
    site.add("baseline", "pubmed27n0001.xml.gz", b"new year")
    done = run(tmp_path, site)
    assert done.downloaded == ["pubmed27n0001.xml.gz"]
    assert done.outdated == [ONE, TWO, THREE]


def test_a_page_without_files(site, tmp_path):
    site.files = {"/baseline/": b"<html>Please log in to the network</html>", "/updatefiles/": b""}
    with pytest.raises(NetworkError, match="found none"):
        run(tmp_path, site)


@pytest.mark.parametrize(
    ("page", "changed"),
    [
        (b'<pre><A HREF="pubmed26n0001.xml.gz">pubmed26n00..&gt;</A>  15-Jan-2026 14:05  19M', date(2026, 1, 15)),
        (b"<table><tr><td><a href='./pubmed26n0001.xml.gz'>x</a><td>2026-01-15 14:05<td>1", date(2026, 1, 15)),
        (b"<a href=/pubmed/baseline/pubmed26n0001.xml.gz?x=1>one</a>", None),
        (b"\xff<a>no link</a><a href='pubmed26n0001.xml.gz'>\xfe</a> 2026-99-99", None),
    ],
)
def test_listings_of_all_kinds(page, changed):
    found = parse_listing(page, "https://example.org/pubmed/baseline/")
    assert [(one.name, one.changed) for one in found] == [(ONE, changed)]
    assert found[0].url.split("?")[0] == f"https://example.org/pubmed/baseline/{ONE}"


@pytest.mark.parametrize("page", [b"", b"   ", b"\0\1\2", b"<a href='pubmed26n0001.xml.gz.md5'>1</a>"])
def test_listings_of_nothing(page):
    assert parse_listing(page, "https://example.org/") == []


def test_one_run_at_a_time(site, tmp_path):
    with hold(tmp_path), pytest.raises(OutputError, match="no other run"):
        run(tmp_path, site)


def test_a_place_that_cannot_be_written(site, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="choose another place"):
        run(tmp_path / "file", site)


def test_the_command(site, tmp_path, command_line):
    site.add("baseline", TWO, CONTENT[TWO], digest="0" * 32)
    words = ("mirror", tmp_path / "pubmed", "--url", site.url)
    code, out, err = command_line(*words, "--dry-run")
    assert (code, out.split()) == (0, [ONE, TWO, THREE])
    code, out, err = command_line(*words, "--json")
    assert code == 1
    document = json.loads(out)
    assert document["downloaded"] == [ONE, THREE]
    assert list(document["failed"]) == [TWO]
    assert f"{TWO}: Expected md5" in err
    assert "1 failed" in err
    code, _, err = command_line("mirror", tmp_path, "--url", "http://127.0.0.1:9/", "--tries", "1")
    assert code == 2
    assert len(err.strip().splitlines()) == 1

"""A package is read with suspicion: every fault is told in one line, and nothing of it is left."""

import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samd_edge import cli
from samd_edge.update import package
from samd_edge.update.layout import Layout
from samd_edge.update.manifest import (
    FILE,
    LAUNCHER,
    Manifest,
    UpdateError,
    check_path,
    decode,
    describe,
    digest,
    encode,
)
from samd_edge.update.package import Package, expected
from samd_scripts import release

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
SMALL_DISK = Path(__file__).with_name("update_small_disk.py")

Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "root")
    layout.releases.mkdir(parents=True)
    return layout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return a_tree(tmp_path / "tree")


def a_tree(tree: Path, *, text: str = "x = 1\n", size: int = 0, **fields: Any) -> Path:
    """A release of two small files and, if asked for, a large one."""
    (tree / "site" / "thing").mkdir(parents=True)
    (tree / "site" / "thing" / "__init__.py").write_text(text)
    if size:
        for number in range(8):
            (tree / "site" / f"large-{number}").write_bytes(os.urandom(size // 8))
    values = {"version": "0.2.0", "machine": platform.machine(), "python": PYTHON, "schemas": {"device": 1}}
    release.seal(tree, **{**values, **fields})
    return tree


def packed(tree: Path, change: Callable[[list[Member]], list[Member]] = lambda members: members) -> Path:
    """The release as a package with the right hash beside it, whatever was changed within."""
    made = release.pack(tree, tree.parent / "packages")
    members: list[Member] = []
    with tarfile.open(made.path) as archive:
        for entry in archive:
            content = archive.extractfile(entry)
            assert content is not None
            members.append((entry, content.read()))
    with tarfile.open(made.path, "w") as archive:
        for entry, data in change(members):
            archive.addfile(entry, io.BytesIO(data))
    found = digest(made.path)
    made.path.with_name(f"{made.path.name}.sha256").write_text(f"{found}  {made.path.name}\n")
    return made.path


def unpacked(path: Path, layout: Layout) -> Path:
    with Package(path, expected(path, None)) as opened:
        part = opened.unpack(layout)
        layout.place(part, opened.manifest.name)
        return layout.folder(opened.manifest.name)


def refused(path: Path, layout: Layout) -> str:
    with pytest.raises(UpdateError) as caught:
        unpacked(path, layout)
    assert list(layout.releases.iterdir()) == [], "nothing of it is left"
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_package_is_unpacked_as_it_was_packed(tree: Path, layout: Layout) -> None:
    folder = unpacked(packed(tree), layout)
    assert describe(folder) == describe(tree)
    assert (folder / LAUNCHER).stat().st_mode & 0o777 == 0o755
    assert (folder / "site/thing/__init__.py").stat().st_mode & 0o777 == 0o644
    assert layout.check(folder.name).name == folder.name


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = a_tree(tmp_path / "a" / "tree"), a_tree(tmp_path / "b" / "tree")
    os.utime(other / "site/thing/__init__.py", (1, 1))
    first, second = release.pack(one, tmp_path / "a"), release.pack(other, tmp_path / "b")
    assert (first.sha256, first.path.name) == (second.sha256, second.path.name)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.path.name == f"samd-edge-{first.manifest.name}.tar"


@pytest.mark.parametrize(
    "fields", [{"text": "x = 2\n"}, {"machine": "other"}, {"python": "3.9"}, {"schemas": {"device": 2}}]
)
def test_another_release_has_another_name(tmp_path: Path, fields: dict[str, Any]) -> None:
    one, other = a_tree(tmp_path / "a"), a_tree(tmp_path / "b", **fields)
    names = {decode((tree / FILE).read_bytes(), "").name for tree in (one, other)}
    assert len(names) == 2


def test_a_signature_changes_no_name(tree: Path) -> None:
    manifest = decode((tree / FILE).read_bytes(), "")
    signed = msgspec.structs.replace(manifest, signature="made later")
    assert signed.name == manifest.name
    assert decode(encode(signed), "").signature == "made later"


def test_a_field_of_later_is_passed_over_and_a_format_of_later_is_not(tree: Path) -> None:
    body = json.loads((tree / FILE).read_bytes())
    name = decode((tree / FILE).read_bytes(), "").name
    assert decode(json.dumps({**body, "colour": "green"}).encode(), "").name == name
    with pytest.raises(UpdateError, match="a release of format 2; this client reads 1"):
        decode(json.dumps({**body, "format": 2}).encode(), "x")


# -- the file as a whole -------------------------------------------------------------------------------------


def test_another_hash_is_refused(tree: Path, layout: Layout) -> None:
    path = packed(tree)
    path.with_name(f"{path.name}.sha256").write_text("0" * 64)
    assert "is truncated, damaged or another one; fetch it anew" in refused(path, layout)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_package_is_refused(tree: Path, layout: Layout, share: float) -> None:
    path = packed(tree)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "is truncated, damaged or another one; fetch it anew" in refused(path, layout)


@pytest.mark.parametrize("size", [0, 100, 600, 1024, 1600, 2100, 2600])
def test_a_truncated_archive_under_its_own_hash_is_refused(tree: Path, layout: Layout, size: int) -> None:
    path = packed(tree)
    path.write_bytes(path.read_bytes()[:size])
    path.with_name(f"{path.name}.sha256").write_text(digest(path))
    assert refused(path, layout).endswith("fetch the package anew")


@pytest.mark.parametrize(
    ("sidecar", "text"),
    [
        (None, "its hash is not known; give --sha256"),
        ("", "cannot be read as a hash; give --sha256"),
        ("é", "cannot be read as a hash; give --sha256"),
        ("deadbeef  x.tar\n", "'deadbeef': is no SHA-256, which has 64 hexadecimal digits"),
    ],
)
def test_a_hash_that_is_none(tree: Path, sidecar: str | None, text: str) -> None:
    path = packed(tree)
    beside = path.with_name(f"{path.name}.sha256")
    if sidecar is None:
        beside.unlink()
    else:
        beside.write_text(sidecar)
    with pytest.raises(UpdateError, match=text):
        expected(path, None)
    assert expected(path, "A" * 64) == "a" * 64


def test_a_chain_of_headers_without_end(tmp_path: Path, layout: Layout) -> None:
    path = tmp_path / "x.tar"
    link = entry("x", type=tarfile.GNUTYPE_LONGNAME, size=512).tobuf() + b"y" * 512
    path.write_bytes(link * 5000)
    path.with_name("x.tar.sha256").write_text(digest(path))
    assert "is no whole archive" in refused(path, layout)


@pytest.mark.parametrize("content", [None, b"", b"no archive at all" * 1000])
def test_what_is_no_package(tmp_path: Path, layout: Layout, content: bytes | None) -> None:
    path = tmp_path / "x.tar"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    found = "0" * 64 if content is None else digest(path)
    path.with_name("x.tar.sha256").write_text(found)
    text = refused(path, layout)
    assert any(
        end in text
        for end in ("there is no such file", "is no package of the client", "fetch the package anew")
    )


# -- what stands in it ---------------------------------------------------------------------------------------


def entry(name: str, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


CHANGES: dict[str, tuple[Callable[[list[Member]], list[Member]], str]] = {
    "a link beside": (
        lambda members: [*members, (entry("site/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")],
        "'site/x' is a link or a device",
    ),
    "a link instead": (
        lambda members: [
            (entry(one.name, type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")
            if "thing" in one.name
            else (one, data)
            for one, data in members
        ],
        "is a link or a device",
    ),
    "a hard link": (
        lambda members: [*members, (entry("site/x", type=tarfile.LNKTYPE, linkname=LAUNCHER), b"")],
        "'site/x' is a link or a device",
    ),
    "a device": (
        lambda members: [*members, (entry("site/x", type=tarfile.CHRTYPE), b"")],
        "'site/x' is a link or a device",
    ),
    "a folder": (
        lambda members: [*members, (entry("site/x", type=tarfile.DIRTYPE), b"")],
        "'site/x' is a link or a device",
    ),
    "a path out": (
        lambda members: [*members, (entry("../../x", size=1), b"x")],
        "'../../x' does not stand in its manifest, or twice",
    ),
    "an absolute path": (
        lambda members: [*members, (entry("/tmp/x", size=1), b"x")],  # noqa: S108
        "'/tmp/x' does not stand in its manifest, or twice",
    ),
    "a file too many": (
        lambda members: [*members, (entry("site/x.pth", size=1), b"x")],
        "'site/x.pth' does not stand in its manifest, or twice",
    ),
    "a file twice": (
        lambda members: [*members, members[-1]],
        "does not stand in its manifest, or twice",
    ),
    "a file too few": (lambda members: members[:-1], "1 files are missing, as site/thing/__init__.py"),
    "other content": (
        lambda members: [*members[:-1], (members[-1][0], b"x = 2\n")],
        "site/thing/__init__.py does not have the hash of its manifest",
    ),
    "another size": (
        lambda members: [*members[:-1], (entry(members[-1][0].name, size=2), b"xx")],
        "site/thing/__init__.py has 2 bytes, not 6",
    ),
    "no manifest": (lambda members: members[1:], "does not begin with manifest.json"),
    "the manifest last": (lambda members: [*members[1:], members[0]], "does not begin with manifest.json"),
    "a manifest that is none": (
        lambda members: [(entry(FILE, size=9), b"{'a': 1}\n"), *members[1:]],
        "manifest.json cannot be read",
    ),
    "a manifest of something else": (
        lambda members: [(entry(FILE, size=12), b'{"format":1}'), *members[1:]],
        "manifest.json cannot be read",
    ),
}


@pytest.mark.parametrize("change", CHANGES, ids=list(CHANGES))
def test_a_package_whose_content_is_not_as_it_should_be(tree: Path, layout: Layout, change: str) -> None:
    changed, text = CHANGES[change]
    assert text in refused(packed(tree, changed), layout)


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/x",
        "../x",
        "a/../../x",
        "a//b",
        "a/./b",
        "a/",
        "a\\b",
        "a\nb",
        FILE,
        f"{FILE}/x",
        "x" * 501,
    ],
)
def test_a_path_that_leaves_the_folder(path: str) -> None:
    with pytest.raises(UpdateError, match="leaves the release's folder"):
        check_path(path, "x.tar")


@pytest.mark.parametrize("path", ["a", "site/numpy.libs/lib-x.so.1", "site/a b.py", "..a", "site/ü.py"])
def test_a_path_that_stays(path: str) -> None:
    check_path(path, "x.tar")


def test_a_manifest_whose_paths_leave_the_folder(tree: Path) -> None:
    manifest = decode((tree / FILE).read_bytes(), "")
    files = {**manifest.files, "../x": manifest.files[LAUNCHER]}
    with pytest.raises(UpdateError, match="leaves the release's folder"):
        decode(encode(msgspec.structs.replace(manifest, files=files)), "x.tar")


@pytest.mark.parametrize("version", ["../x", "", "x" * 80, "0.1/2", "0.1\n"])
def test_a_version_that_makes_no_name(tree: Path, version: str) -> None:
    manifest = decode((tree / FILE).read_bytes(), "")
    with pytest.raises(UpdateError, match="is no name of a release"):
        decode(encode(msgspec.structs.replace(manifest, version=version)), "x.tar")


def test_a_release_without_the_client(tree: Path) -> None:
    manifest = decode((tree / FILE).read_bytes(), "")
    for files in (
        {},
        {LAUNCHER: msgspec.structs.replace(manifest.files[LAUNCHER], executable=False)},
    ):
        with pytest.raises(UpdateError, match="holds no bin/samd-edge"):
            decode(encode(msgspec.structs.replace(manifest, files=files)), "x.tar")


def test_a_folder_with_a_link_is_no_release(tree: Path) -> None:
    (tree / "site" / "x").symlink_to("/etc/passwd")
    with pytest.raises(UpdateError, match="is neither file nor folder"):
        describe(tree)


# -- the device ----------------------------------------------------------------------------------------------


def test_another_machine_or_python_is_refused(tree: Path) -> None:
    path = packed(tree)
    with Package(path, expected(path, None)) as opened:
        opened.check_fits()
        with pytest.raises(
            UpdateError, match=f"is for {platform.machine()}, this device is armv6l; fetch the"
        ):
            opened.check_fits(machine="armv6l")
        with pytest.raises(UpdateError, match=f"is for Python {PYTHON}, this device has 3.99; fetch the"):
            opened.check_fits(python="3.99")


def test_what_has_no_room_is_refused(tree: Path) -> None:
    path = packed(tree)
    with Package(path, expected(path, None)) as opened:
        opened.check_space(package.SPARE + 2 * 4096)
        with pytest.raises(UpdateError, match="needs 17 MB, 17 MB are free; make room and try again"):
            opened.check_space(package.SPARE + 2 * 4096 - 1)


@pytest.mark.parametrize(
    ("mode", "size", "said"),
    [
        ("too small", "8m", "needs 19 MB, 8 MB are free; make room and try again"),
        ("fills", "24m", "the disk is full; what was unpacked is removed: make room and try again"),
        ("returns", "8m", "returned"),
    ],
)
def test_a_disk_that_is_full(tmp_path: Path, mode: str, size: str, said: str) -> None:
    old = a_tree(tmp_path / "old", version="0.1.0")
    new = a_tree(tmp_path / "new", text="x = 3\n")
    path = packed(a_tree(tmp_path / "large", size=2_000_000))
    disk = tmp_path / "disk"
    disk.mkdir()
    answer = on_a_small_disk(
        disk, size, [sys.executable, str(SMALL_DISK), mode, str(disk), str(path), str(old), str(new)]
    )
    assert answer["said"].endswith(said)
    first = decode((old / FILE).read_bytes(), "").name
    assert (answer["current"], answer["releases"], answer["trial"]) == (first, [first], False)


def on_a_small_disk(folder: Path, size: str, command: list[str]) -> dict[str, Any]:
    """Run a command that finds a small file system on a folder, which only it sees; without root."""
    apart = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    )
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run([*apart, *mount], check=False, capture_output=True).returncode:
        pytest.skip("here nobody may mount a file system of his own")
    script = '"$1" "$2" "$3" "$4" "$5" "$6" "$7" && shift 7 && exec "$@"'
    done = subprocess.run(
        [*apart, "sh", "-c", script, "sh", *mount, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["status"], "current: names no release"),
        (["back"], "current: names no release"),
        (["apply", "missing.tar", "--sha256", "0" * 64], "current: names no release"),
        (["apply", "missing.tar"], "its hash is not known"),
        (
            ["apply", "missing.tar", "--sha256", "0" * 64, "--deadline", "nan"],
            "a limit of the trial cannot be",
        ),
        (["apply", "missing.tar", "--sha256", "0" * 64, "--settle", "0"], "a limit of the trial cannot be"),
        (["apply", "missing.tar", "--sha256", "0" * 64, "--restart", "'"], "is no command"),
        (["check", "--boot-id", "/nowhere"], "/nowhere: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    action, *rest = arguments
    assert cli.main(["update", action, "--root", str(tmp_path), *rest]) == 2
    shown = capsys.readouterr()
    assert text in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["update", "back", "--root", str(tmp_path / "none")]) == 2
    assert "there is no such folder; this device was not made by scripts/flash" in capsys.readouterr().err


def test_a_manifest_of_a_release_that_was_changed(tree: Path, layout: Layout) -> None:
    folder = unpacked(packed(tree), layout)
    (folder / "site/thing/__init__.py").write_text("x = 9\n")
    (folder / "site/more.py").write_text("")
    with pytest.raises(UpdateError, match=r"2 files are not those of the release \(site/more.py\)"):
        layout.check(folder.name)
    manifest: Manifest = decode((folder / FILE).read_bytes(), "")
    (folder / FILE).write_bytes(encode(msgspec.structs.replace(manifest, version="9.9.9")))
    with pytest.raises(UpdateError, match=r"is the manifest of 9\.9\.9-"):
        layout.manifest(folder.name)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 255)), min_size=1, max_size=12))
def test_whatever_stands_in_a_package_it_is_whole_or_refused(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    tree = tmp_path / "tree"
    if not tree.exists():
        a_tree(tree)
        release.pack(tree, tmp_path / "made")
    made = next((tmp_path / "made").glob("*.tar"))
    data = bytearray(made.read_bytes())
    for place, byte in changes:
        data[place] = byte
    path = tmp_path / "changed.tar"
    path.write_bytes(data)
    path.with_name("changed.tar.sha256").write_text(digest(path))
    layout = Layout(tmp_path / "root")
    layout.releases.mkdir(parents=True, exist_ok=True)
    try:
        folder = unpacked(path, layout)
    except UpdateError:
        pass
    else:
        assert describe(folder) == layout.manifest(folder.name).files
        layout.remove(folder.name)
    assert list(layout.releases.iterdir()) == []

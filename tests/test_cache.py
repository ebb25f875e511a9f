"""Unfinished runs and kernels lie outside the repository, where the user says."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from repro.cache import CacheError, cache_root, is_private, make_private, user_cache
from repro.data.files import search_path
from repro.data.tabular_others import GAS_FILE
from repro.results import results_root

SUITE = "neural-ode-ffjord-suite"
OTHER = 12345
"""A user who is not this one; only root can give away a folder."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """No HOME and no entry in the system's list of users, as `docker run -u 12345` has it."""

    def missing(*arguments):
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "REPRO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", missing)
    (tmp_path / "tmp").mkdir(mode=0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp" / f"{SUITE}-{os.geteuid()}"


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("REPRO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "neural-ode-ffjord-suite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "neural-ode-ffjord-suite"


def test_what_every_run_shares_does_not_follow_the_cache_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_cache() == tmp_path / "xdg" / "neural-ode-ffjord-suite"
    assert cache_root() == tmp_path / "cache"


@pytest.mark.parametrize("value", ["", "relative/cache", "."])
def test_an_empty_or_relative_cache_home_counts_as_unset(value, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert user_cache() == tmp_path / "home" / ".cache" / SUITE


@pytest.mark.parametrize("variable", ["REPRO_CACHE", "REPRO_RESULTS", "REPRO_DATA"])
def test_an_empty_folder_counts_as_unset_and_is_never_the_current_one(variable, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def places():
        return cache_root(), results_root(), search_path(GAS_FILE)

    monkeypatch.delenv(variable, raising=False)
    expected = places()
    monkeypatch.setenv(variable, "")
    assert places() == expected


def test_without_a_home_the_cache_is_a_private_folder_of_this_user(homeless):
    assert cache_root() == homeless
    assert stat.S_IMODE(homeless.stat().st_mode) == 0o700
    (homeless / "data").mkdir()
    assert cache_root() == homeless, "the second time it is there"


@needs_root
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_without_a_home_another_users_folder_is_refused(kind, homeless, tmp_path, call):
    if kind == "link":
        (tmp_path / "planted").mkdir()
        homeless.symlink_to(tmp_path / "planted")
        os.lchown(homeless, OTHER, OTHER)
    else:
        homeless.mkdir(mode=0o777)
        os.chown(homeless, OTHER, OTHER)
    with pytest.raises(CacheError, match="belongs to another user"):
        cache_root()
    code, _, err = call("run", "neural_ode/table1_mnist", "mlp", "--epochs", "1", "--train-limit", "128")
    assert code == 1
    assert err == f"error: {homeless} belongs to another user: set REPRO_CACHE and XDG_CACHE_HOME to folders of yours\n"


def test_a_folder_of_this_user_that_others_can_write_into_is_closed_to_them(tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o775)
    assert stat.S_IMODE(make_private(folder).stat().st_mode) == 0o700


def test_a_file_is_private_if_nobody_else_can_have_written_it(tmp_path):
    file = tmp_path / "kernels.so"
    assert not is_private(file)
    file.write_bytes(b"")
    for mode, private in ((0o600, True), (0o755, True), (0o664, False), (0o646, False)):
        file.chmod(mode)
        assert is_private(file) == private
    link = tmp_path / "link"
    link.symlink_to(file)
    file.chmod(0o600)
    assert not is_private(link)


@needs_root
def test_another_users_file_is_not_private(tmp_path):
    file = tmp_path / "kernels.so"
    file.touch(0o600)
    os.chown(file, OTHER, OTHER)
    assert not is_private(file)

"""Unfinished runs and kernels lie outside the repository, where the user says."""

from pathlib import Path

from repro.cache import cache_root, user_cache


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

"""Loading of settings: who wins, where a value came from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2store.config import Duration, Settings, SettingsRefused, load
from k2store.config.quantity import Quantity
from k2store.config.table import rows


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where no `k2.toml` lies about."""
    monkeypatch.chdir(tmp_path)


def test_defaults_fit_together() -> None:
    """Without file, environment and flags the settings load, and all origins are `default`."""
    loaded = load(env={})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_later_places_win_and_are_named(tmp_path: Path) -> None:
    """Flags override the environment, which overrides the file, which overrides defaults."""
    file = tmp_path / "some.toml"
    file.write_text('[clock]\nbound = "100us"\nstamp_batch = 7\n[node]\nname = "fra-1"\n')
    loaded = load(
        file,
        env={"K2_CLOCK__BOUND": "200us", "K2_CLOCK__STAMP_BATCH": "8", "K2_HYPOTHESIS": "ci"},
        overrides={"clock.bound": "300us", "node.region": None},
    )
    assert loaded.settings.clock.bound == 300_000
    assert loaded.settings.clock.stamp_batch == 8
    assert loaded.settings.node.name == "fra-1"
    assert loaded.origins["clock.bound"] == "flag"
    assert loaded.origins["clock.stamp_batch"] == "environment K2_CLOCK__STAMP_BATCH"
    assert loaded.origins["node.name"] == f"file {file}"
    assert loaded.origins["node.region"] == "default"


def test_file_is_found_here_or_by_its_variable(tmp_path: Path) -> None:
    """`k2.toml` of the current folder is read, unless `K2_CONFIG` names another file."""
    (tmp_path / "k2.toml").write_text('[node]\nname = "here"\n')
    (tmp_path / "other.toml").write_text('[node]\nname = "there"\n')
    assert load(env={}).settings.node.name == "here"
    assert load(env={"K2_CONFIG": "other.toml"}).settings.node.name == "there"


@pytest.mark.parametrize(
    ("name", "near"),
    [("clock.bond", "clock.bound"), ("clok.bound", "clock.bound"), ("limits.keys", "limits.key")],
)
def test_unknown_names_get_the_nearest_hint(name: str, near: str, tmp_path: Path) -> None:
    """A misspelt setting is refused in each place, with the setting that was probably meant."""
    with pytest.raises(SettingsRefused, match=f"did you mean {near}") as refused:
        load(env={}, overrides={name: "1"})
    assert refused.value.field == name
    variable = "K2_" + name.upper().replace(".", "__")
    with pytest.raises(SettingsRefused, match=f"did you mean {near}"):
        load(env={variable: "1"})
    section, _, field = name.partition(".")
    (tmp_path / "k2.toml").write_text(f'[{section}]\n{field} = "1"\n')
    with pytest.raises(SettingsRefused, match="did you mean"):
        load(env={})


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[clock]\nbound = 5", "write it with its unit"),
        ('[clock]\nbound = "5 parsecs"', "expected a number with a unit"),
        ("[clock]\nstamp_batch = true", "expected a whole number"),
        ('[clock]\nstamp_batch = "7"', "expected a whole number"),
        ("[storage]\nsync = 1", "expected true or false"),
        ("[node]\nname = 5", "expected text"),
        ('[clock]\nsource = "sundial"', "expected one of declared, kernel, file"),
        ('[limits]\nvalue = "1GiB"', "the largest allowed is 1MiB"),
        ('[clock]\nbound = "1ns"', "the smallest allowed is 1us"),
        ("clock = 5", "must be a table"),
        ("[clock", "is not TOML"),
    ],
)
def test_wrong_values_are_refused_with_their_place(toml: str, words: str, tmp_path: Path) -> None:
    """A value of the wrong form or outside its bounds is refused; the message names the file."""
    (tmp_path / "k2.toml").write_text(toml)
    with pytest.raises(SettingsRefused, match=words) as refused:
        load(env={})
    assert "k2.toml" in refused.value.message


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"clock.bound": "800us"}, "clock.bound_max"),
        ({"clock.ahead_max": "1455us"}, "clock.ahead_max"),
        ({"clock.source": "file"}, "clock.file"),
        ({"transactions.expiry": "600ms"}, "transactions.expiry"),
        ({"transactions.retention": "5s"}, "transactions.retention"),
        ({"storage.segment": "1048577B"}, "storage.segment"),
        ({"tls.certificate": "node.pem"}, "tls.key"),
        ({"tls.authority": "ca.pem"}, "tls.authority"),
    ],
)
def test_contradictions_are_refused(overrides: dict[str, str], field: str) -> None:
    """Settings that are fine alone and wrong together are refused under the name that is off."""
    with pytest.raises(SettingsRefused) as refused:
        load(env={}, overrides=overrides)
    assert refused.value.field == field


def test_the_smallest_sufficient_distance_ahead_is_accepted() -> None:
    """D may be exactly bound + TTL + a full batch of ticks, and not a nanosecond less."""
    assert load(env={}, overrides={"clock.ahead_max": "1456us"}).settings.clock.ahead_max == 1456000
    with pytest.raises(SettingsRefused):
        load(env={}, overrides={"clock.ahead_max": "1455999ns"})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that was named and does not exist is an error, not a silent default."""
    with pytest.raises(SettingsRefused, match="cannot read"):
        load(tmp_path / "absent.toml", env={})


def test_every_number_has_a_largest_value() -> None:
    """Each numeric setting is bounded on both sides, and its default lies inside."""
    for row in rows().values():
        if row.kind is int or issubclass(row.kind, Quantity):
            assert row.least is not None, row.path
            assert row.most is not None, row.path
            assert row.least <= int(row.default) <= row.most, row.path


def test_every_setting_has_a_sentence() -> None:
    """Each setting explains itself in a sentence."""
    for row in rows().values():
        assert row.about.text[0].isupper() or row.about.text[0] == "`", row.path
        assert row.about.text.endswith("."), row.path


@given(st.dictionaries(st.sampled_from(sorted(rows())), st.text(max_size=12), max_size=3))
def test_arbitrary_text_loads_or_is_refused(said: dict[str, str]) -> None:
    """Whatever text a flag carries, the outcome is settings or a SettingsRefused."""
    try:
        loaded = load(env={}, overrides=said)
    except SettingsRefused as refused:
        named = refused.field in rows()
    else:
        named = all(loaded.origins[name] == "flag" for name in said)
    assert named


def test_settings_cannot_be_changed() -> None:
    """The tree is frozen: what was checked stays what is in force."""
    with pytest.raises(AttributeError):
        Settings().clock.bound = Duration(1)  # type: ignore[misc] # that is the point

"""Where trials run: what may be written, and what is said of the rest."""

from __future__ import annotations

import pytest

from act.errors import InputError
from act.search.runners import TRIALS_ON, Cluster


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("dask", "dask", None),
        ("ray", "ray", None),
        ("dask:tcp://127.0.0.1:8786", "dask", "tcp://127.0.0.1:8786"),
        ("dask:tcp://big-one.lab:8786", "dask", "tcp://big-one.lab:8786"),
        ("ray:ray://[fe80::1]:10001", "ray", "ray://[fe80::1]:10001"),
    ],
)
def test_what_may_be_written(monkeypatch: pytest.MonkeyPatch, text: str, kind: str, address: str | None) -> None:
    monkeypatch.setenv(TRIALS_ON, text)
    found = Cluster.from_environment()
    assert found is not None
    assert (found.kind, found.address) == (kind, address)
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    ["Dask", "spark", "dask:", "dask:8786", "dask:ray://here:1", "ray:tcp://here:1", "dask:tcp://here", "dask \n"],
)
def test_the_rest_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(TRIALS_ON, text)
    with pytest.raises(InputError) as error:
        Cluster.from_environment()
    assert repr(text) in str(error.value)
    assert TRIALS_ON in str(error.value) and "`dask:tcp://HOST:PORT`" in str(error.value)


@pytest.mark.parametrize("text", [None, ""])
def test_unset_means_here(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    monkeypatch.delenv(TRIALS_ON, raising=False)
    if text is not None:
        monkeypatch.setenv(TRIALS_ON, text)
    assert Cluster.from_environment() is None

"""What all tests share: where pretrained weights lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from remime.weights import UnavailableError, Weights, ensure, load

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Point every test and what it starts at the checkout's weights, also from another working directory."""
    os.environ.setdefault("REMIME_WEIGHTS", str(ROOT / "resources" / "weights"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest starts first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_whole.py")


@pytest.fixture(scope="session")
def weights() -> Callable[[str], Weights]:
    """``weights(name)`` fetches and converts where needed and loads; it skips when a file cannot be had."""

    def get(name: str) -> Weights:
        try:
            ensure(name)
        except UnavailableError as error:
            pytest.skip(f"no weights: {error}")
        return load(name)

    return get

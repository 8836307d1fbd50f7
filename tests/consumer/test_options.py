"""Owns the tests of which arguments belong together: what would be ignored is refused, and named."""

from __future__ import annotations

from typing import Any

import pytest

from dfserve import ConfigError, RemoteDataZMQ
from dfserve.consumer.options import OF_DFSERVE
from dfserve.consumer.remote import OPTIONS

NOTHING_IS_LISTENING = "ipc://@nobody"


def test_every_option_is_one_of_dfserves_own() -> None:
    assert set(OF_DFSERVE) == set(OPTIONS)
    assert len(OF_DFSERVE) == len(OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "msgpack", "pipeline": "train"}, "pipeline: format='msgpack' is another program's"),
        ({"format": "zmq_ops", "group": "g", "on_error": "skip"}, "group, on_error: .* leave it out"),
        ({"format": "msgpack", "keys": "here"}, "keys: "),
        ({"format": "msgpack", "batch_size": 5}, "batch_size: "),
        ({"format": "msgpack", "metrics_port": 9100}, "metrics_port: "),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RemoteDataZMQ(NOTHING_IS_LISTENING, **options)


def test_the_ranks_of_a_script_may_differ_in_who_binds_alone() -> None:
    of_the_broker = {"queue_bytes": 1 << 20, "metrics_port": 9100, "max_frame": 1 << 20, "lease_time": 5.0}
    for bind in (True, False):
        RemoteDataZMQ(NOTHING_IS_LISTENING, bind=bind, mode="epochs", **of_the_broker)


@pytest.mark.parametrize("bind", [True, False])
def test_an_option_that_is_given_as_it_is_by_default_is_none(bind: bool) -> None:
    RemoteDataZMQ(NOTHING_IS_LISTENING, bind=bind, **OPTIONS)
    RemoteDataZMQ(NOTHING_IS_LISTENING, bind=bind, format="msgpack", **OPTIONS)

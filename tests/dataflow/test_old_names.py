"""tensorpack's old keywords; its old method names are tested with the DataFlow protocol."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest

from dfserve.dataflow.old_names import old_keywords


class Runner:
    @old_keywords(nr_proc="num_proc", nr_prefetch="num_prefetch")
    def __init__(self, ds: Any, num_proc: int, num_prefetch: int = 7) -> None:
        """Run it."""
        self.arguments = (ds, num_proc, num_prefetch)


def test_the_new_keywords_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Runner("ds", 3).arguments == ("ds", 3, 7)
        assert Runner("ds", num_proc=3, num_prefetch=1).arguments == ("ds", 3, 1)


def test_an_old_keyword_means_the_new_one_and_warns_its_caller() -> None:
    old: Any = Runner
    with pytest.warns(DeprecationWarning, match="nr_proc is the old name of num_proc") as caught:
        assert old("ds", nr_proc=3).arguments == ("ds", 3, 7)
    assert caught[0].filename == __file__


def test_each_old_keyword_warns() -> None:
    old: Any = Runner
    with pytest.warns(DeprecationWarning, match="is the old name of num_pr") as caught:
        assert old(ds="ds", nr_prefetch=1, nr_proc=3).arguments == ("ds", 3, 1)
    assert len(caught) == 2


def test_a_parameter_is_given_under_one_name_only() -> None:
    old: Any = Runner
    with pytest.raises(TypeError, match="nr_proc is the old name of num_proc: give one of them"):
        old("ds", num_proc=1, nr_proc=2)
    with pytest.warns(DeprecationWarning, match="nr_proc"), pytest.raises(TypeError, match="multiple values"):
        old("ds", 1, nr_proc=2)


def test_the_signature_and_docstring_stay_those_of_the_function() -> None:
    assert list(inspect.signature(Runner).parameters) == ["ds", "num_proc", "num_prefetch"]
    assert inspect.getdoc(Runner.__init__) == "Run it."


def test_an_unknown_keyword_is_still_an_error() -> None:
    old: Any = Runner
    with pytest.raises(TypeError, match="nr_thread"):
        old("ds", 1, nr_thread=2)

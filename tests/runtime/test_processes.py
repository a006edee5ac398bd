"""A rank among others."""

import pytest

from score_lightning.errors import UserError
from score_lightning.runtime.processes import Rank


def test_one_process_has_what_it_has():
    assert Rank().gather(3) == [3]
    assert Rank().broadcast("x") == "x"


def test_errors_inside_an_agreement_are_raised():
    with pytest.raises(UserError, match="no picture"), Rank().sharing_errors():
        raise UserError("no picture")
    with Rank().sharing_errors():
        pass

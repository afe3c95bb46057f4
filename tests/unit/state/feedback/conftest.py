"""An empty feedback database and its file."""

from contextlib import closing

import pytest

from service.state.feedback.store import FILE_NAME, begin_feedback


@pytest.fixture
def path(tmp_path):
    return tmp_path / FILE_NAME


@pytest.fixture
def store(tmp_path):
    with closing(begin_feedback(tmp_path)) as store:
        yield store

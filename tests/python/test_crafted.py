"""The tables made by hand are right: other readers agree on them, before ours is asked."""

import crafted
import pytest
from readers import READERS, plain


@pytest.mark.parametrize("read", READERS)
def test_readers_agree_on_deletion_vectors(tmp_path, read):
    left = crafted.table_with_vectors(tmp_path / "t")
    assert [row["id"] for row in plain(read(tmp_path / "t"))] == left

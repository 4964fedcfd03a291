"""Files that are complete or absent."""

import pytest

from amrsd_jax.files import atomic_write


def test_a_file_that_was_not_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "new" / "file"
    atomic_write(path, "before")

    def half(draft):
        draft.write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, half)
    assert path.read_text() == "before"
    atomic_write(path, "after")  # the draft that was left is not in the way
    assert path.read_text() == "after" and [one.name for one in path.parent.iterdir()] == ["file"]

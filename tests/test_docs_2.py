"""What the documentation shows is true: another third of the pages; see test_docs.py."""

import pytest
from documented import PATIENCE, check, share


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("name", share(1))
def test_a_page_is_true(name, tmp_path):
    check(name, tmp_path)

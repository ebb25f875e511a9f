"""What tests of whole reports share."""

import pytest

from repro.report.pages import README_BLOCKS


@pytest.fixture
def whole_readme():
    """Complete a README with the blocks that it lacks, below what it has."""

    def complete(text):
        lacking = [name for name in README_BLOCKS if f"<!-- generated:{name} -->" not in text]
        return text + "".join(f"\n<!-- generated:{name} -->\n<!-- end:{name} -->\n" for name in lacking)

    return complete

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def as_users_call() -> Iterator[None]:
    """Shape checks off, as they are outside pytest: what do users see who give shapes that disagree?"""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)

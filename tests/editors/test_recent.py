"""Values held by key: the ones used last stay, and each is right."""

from hypothesis import given
from hypothesis import strategies as st

from countervid.editors.recent import Recent


@given(st.integers(1, 4), st.lists(st.integers(0, 6), max_size=40))
def test_the_values_used_last_are_held(size, keys):
    recent, computed, order = Recent[int, int](size), [], []
    for key in keys:
        before = len(computed)
        assert recent.get(key, lambda k=key: computed.append(k) or -k) == -key
        assert (len(computed) > before) == (key not in order[-size:])
        order = [other for other in order if other != key] + [key]


def test_a_value_may_be_made_of_another():
    recent = Recent[int, int](1)

    def total(n):
        return recent.get(n, lambda: n + (total(n - 1) if n else 0))

    assert total(5) == 15

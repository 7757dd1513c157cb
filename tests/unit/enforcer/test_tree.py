"""The tree against the published vectors of Certificate Transparency and against RFC 6962's own recursive
definition."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.enforcer import tree

# The reference leaves and roots of the Certificate Transparency code base (merkletree tests), n = 1..8.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def recursive_root(data: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if len(data) == 1:
        return sha256(b"\x00" + data[0]).digest()
    split = 1
    while split * 2 < len(data):
        split *= 2
    return sha256(b"\x01" + recursive_root(data[:split]) + recursive_root(data[split:])).digest()


@pytest.mark.parametrize("count", range(1, 9))
def test_roots_of_the_reference_vectors(count: int) -> None:
    assert tree.root([tree.leaf_hash(data) for data in LEAVES[:count]]).hex() == ROOTS[count - 1]


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70), st.data())
def test_a_path_proves_its_own_leaf_and_no_other(data: list[bytes], draw: st.DataObject) -> None:
    leaves = [tree.leaf_hash(each) for each in data]
    built = tree.levels(leaves)
    root = built[-1][0]
    assert root == recursive_root(data)
    index = draw.draw(st.integers(0, len(data) - 1))
    path = tree.path(built, index)
    assert tree.root_of_path(leaves[index], index=index, count=len(data), siblings=path) == root
    other = draw.draw(st.binary(min_size=32, max_size=32))
    if other != leaves[index]:
        assert tree.root_of_path(other, index=index, count=len(data), siblings=path) != root
    assert tree.root_of_path(leaves[index], index=index, count=len(data), siblings=(*path, other)) is None
    if path:
        assert tree.root_of_path(leaves[index], index=index, count=len(data), siblings=path[:-1]) != root
        flipped = (bytes([path[0][0] ^ 1]) + path[0][1:], *path[1:])
        assert tree.root_of_path(leaves[index], index=index, count=len(data), siblings=flipped) != root


def test_an_index_outside_the_tree_is_refused() -> None:
    leaves = [tree.leaf_hash(b"a"), tree.leaf_hash(b"b")]
    with pytest.raises(IndexError):
        tree.path(tree.levels(leaves), 2)
    assert tree.root_of_path(leaves[0], index=2, count=2, siblings=(leaves[1],)) is None
    assert tree.root_of_path(leaves[0], index=-1, count=2, siblings=(leaves[1],)) is None
    with pytest.raises(ValueError, match="at least one leaf"):
        tree.levels([])

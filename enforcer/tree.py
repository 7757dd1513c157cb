"""Merkle trees of RFC 6962: leaves in, root and inclusion paths out; the only place that hashes trees.

Sources: RFC 6962 section 2.1 (hashes, root, path); RFC 9162 section 2.1.3.2 (verifying an inclusion path).
"""

from collections.abc import Sequence
from hashlib import sha256

HASH_BYTES = 32


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Every level of the tree over leaf hashes, leaves first, root last; an unpaired last node moves up as it is.

    Raises:
        ValueError: there is no leaf; an empty tree is never sealed.
    """
    if not leaves:
        raise ValueError("a tree needs at least one leaf")
    built = [list(leaves)]
    while len(built[-1]) > 1:
        below = built[-1]
        above = [node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        if len(below) % 2:
            above.append(below[-1])
        built.append(above)
    return built


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, 32 bytes.

    Raises:
        ValueError: there is no leaf.
    """
    return levels(leaves)[-1][0]


def path(tree: Sequence[Sequence[bytes]], index: int) -> tuple[bytes, ...]:
    """The inclusion path of leaf `index` in a tree made by `levels`, from the leaf's sibling up.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(tree[0]):
        raise IndexError(f"leaf {index} of {len(tree[0])}")
    found = []
    for level in tree[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            found.append(level[sibling])
        index //= 2
    return tuple(found)


def root_of_path(leaf: bytes, *, index: int, count: int, siblings: Sequence[bytes]) -> bytes | None:
    """The root that the path leads to; None where the path cannot be one of leaf `index` among `count`."""
    if not 0 <= index < count:
        return None
    node, position, last = leaf, index, count - 1
    for sibling in siblings:
        if last == 0 or len(sibling) != HASH_BYTES:
            return None
        if position % 2 or position == last:
            node = node_hash(sibling, node)
            while position % 2 == 0 and position != 0:
                position //= 2
                last //= 2
        else:
            node = node_hash(node, sibling)
        position //= 2
        last //= 2
    return node if last == 0 else None

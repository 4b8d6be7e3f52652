# SPDX-License-Identifier: Apache-2.0
"""A host list has as many names as it says, each found at a place where it stands, and a list of them is the same.

What is malformed or stands for too many names is a `HostListError`.
"""

from __future__ import annotations

from itertools import islice

from slurm_adopt.wire.hostlist import MAX_NAME_LENGTH, MAX_NAMES, HostList, HostListError, expand

LOOKED_AT = 12
MAX_LEN = MAX_NAME_LENGTH + 100


def check(data: bytes) -> None:
    """A list as text."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = HostList(text)
    except HostListError:
        return
    assert len(found) <= MAX_NAMES
    names = list(islice(found, LOOKED_AT))
    assert len(names) == min(len(found), LOOKED_AT)
    for place, name in enumerate(names):
        assert found[place] == name
        assert len(name) <= MAX_NAME_LENGTH
        if len(names) == len(found):
            assert list(found.places(name)) == [at for at, other in enumerate(names) if other == name]
        first = found.index(name)
        assert first is not None
        assert first <= place
        assert found[first] == name
    if len(found):
        last = found[len(found) - 1]
        where = found.index(last) if len(found) <= 200 else len(found) - 1
        assert where is not None
        assert found[where] == last
    try:
        found[len(found)]
    except IndexError:
        pass
    else:
        raise AssertionError("a name beyond the end")
    if len(names) == len(found) and not any(set("[],") & set(name) for name in names) and all(names):
        assert list(expand(",".join(names))) == names

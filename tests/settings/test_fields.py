"""What a field of the settings can be."""

import dataclasses

from p2p_dist.settings import fields


def test_a_field_says_whether_it_may_change_and_what_older_records_imply():
    @dataclasses.dataclass
    class Some:
        nodes: int = fields.resource(1)
        later: int = fields.added(7, implied=3)

    nodes, later = dataclasses.fields(Some)
    assert Some() == Some(1, 7)
    assert dict(nodes.metadata) == {"resource": True} and dict(later.metadata) == {"implied": 3}

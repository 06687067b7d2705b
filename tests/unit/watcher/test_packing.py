"""How the watcher keeps thousands of objects in little memory: each as it was, whatever its shape and its neighbours'."""

from __future__ import annotations

import copy

import pytest

from watcher.kube.packing import SHAPES, Packer
from watcher.kube.resources import Body


def request(number: int, **status: object) -> Body:
    found: Body = {
        "apiVersion": "engine.kubevault.com/v1alpha1",
        "kind": "DatabaseAccessRequest",
        "metadata": {
            "namespace": "demo",
            "name": f"rqst-{number}",
            "uid": f"uid-{number}",
            "annotations": {"leasegate.dev/requested-by": "alice"},
        },
        "spec": {
            "roleRef": {"kind": "PostgresRole", "name": "psql-role"},
            "subjects": [{"kind": "ServiceAccount", "name": "demo-sa"}],
        },
    }
    return found | ({"status": status} if status else {})


def test_objects_of_every_shape_come_back_as_they_were() -> None:
    packer = Packer()
    bodies: list[Body] = [
        request(1),
        request(2),
        request(3, phase="Approved", conditions=[{"type": "Approved", "message": "größer, 更大, \u2028"}]),
        request(4, phase="Approved", conditions=[]),
        request(5, phase="Denied"),
        {**request(6), "status": None},
        {"metadata": {}},
        {},
    ]
    packed = [packer.pack(copy.deepcopy(body)) for body in bodies]
    assert [packer.unpack(each) for each in packed] == bodies


def test_the_second_of_a_shape_takes_a_fraction_of_the_first() -> None:
    packer = Packer()
    first, second = (
        len(packer.pack(request(number, phase="Approved", lease={"id": f"lease-{number}"}))) for number in (1, 2)
    )
    alone = len(Packer().pack({"metadata": {}}))
    assert second < 80 + alone
    assert first < 80 + alone, "it is packed against itself"


@pytest.mark.parametrize("shapes", [SHAPES - 1, SHAPES, SHAPES + 1, 3 * SHAPES])
def test_more_shapes_than_can_be_numbered_are_kept_all_the_same(shapes: int) -> None:
    packer = Packer()
    bodies = [request(number, **{f"member{number}": number}) for number in range(shapes)]
    packed = [packer.pack(body) for body in bodies]
    assert [packer.unpack(each) for each in packed] == bodies

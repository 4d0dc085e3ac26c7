"""Which detections are one object: the paper's filtering, by boxes and by masks."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsearch.rewards.detection.overlap import cells, confident, distinct

SIDE = 12


def masks_of(boxes):
    """Boxes with whole edges as masks."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    inside = [(x >= a) & (x < c) & (y >= b) & (y < d) for a, b, c, d in boxes.tolist()]
    return torch.stack(inside)


def kept(boxes, scores, classes, masks=None):
    """Indices that are kept."""
    found = distinct(
        torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), torch.tensor(classes), masks
    )
    return found.nonzero().flatten().tolist()


box = st.tuples(*[st.integers(0, SIDE - 1)] * 2, *[st.integers(1, 6)] * 2).map(
    lambda b: (b[0], b[1], min(SIDE, b[0] + b[2]), min(SIDE, b[1] + b[3]))
)


class TestConfident:
    def test_weak_ones_count_only_beside_others_as_weak(self):
        scores = torch.tensor([0.5, 0.33, 0.31, 0.31, 0.25, 0.18])
        classes = torch.tensor([0, 0, 0, 1, 1, 1])
        # class 0: 0.6 x 0.5 = 0.3; class 1: 0.6 x 0.31 = 0.186
        assert confident(scores, classes).tolist() == [True, True, True, True, True, False]
        scores = torch.tensor([0.9, 0.33, 0.31])
        assert confident(scores, classes[:3]).tolist() == [True, True, False]

    def test_nothing_stays_nothing(self):
        assert confident(torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0,)
        assert kept([[0, 0, 1, 1]][:0], [], []) == []


@given(st.lists(box, min_size=1, max_size=6))
def test_cells_measure_every_union(boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    cover, area = cells(boxes)
    masks = masks_of(boxes)
    for some in torch.randint(0, 2, (4, len(boxes)), dtype=torch.bool):
        assert area[cover[some].any(dim=0)].sum() == masks[some].any(dim=0).sum()


@settings(deadline=None)
@given(st.lists(box, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_masks_that_are_boxes_decide_within_a_class_as_the_boxes(boxes, random):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    scores = torch.tensor([random.random() for _ in boxes])
    classes = torch.zeros(len(boxes))
    by_boxes = distinct(boxes, scores, classes, None)
    assert torch.equal(by_boxes, distinct(boxes, scores, classes, masks_of(boxes)))
    assert bool(by_boxes.any())


class TestWithinAClass:
    def test_a_box_around_two_objects_is_none(self):
        boxes = [(0, 0, 5, 6), (6, 0, 11, 6), (0, 0, 11, 6)]
        assert kept(boxes, [0.5, 0.4, 0.9], [0, 0, 0]) == [0, 1]

    def test_more_than_half_of_it_has_to_be_new(self):
        small = (0, 0, 4, 4)
        assert kept([small, (2, 0, 6, 4)], [0.9, 0.8], [0, 0]) == [0]  # half of it is new
        assert kept([small, (3, 0, 7, 4)], [0.9, 0.8], [0, 0]) == [0, 1]

    def test_other_classes_cover_nothing(self):
        assert kept([(0, 0, 4, 4), (0, 0, 4, 10)], [0.9, 0.8], [0, 1]) == [0, 1]


class TestAcrossClasses:
    def test_one_object_is_of_the_better_class(self):
        assert kept([(0, 0, 6, 6), (0, 0, 6, 7)], [0.5, 0.6], [0, 1]) == [1]

    def test_a_dog_in_front_of_a_sofa_stays_by_its_box(self):
        assert kept([(0, 0, 12, 8), (2, 2, 6, 6)], [0.9, 0.5], [0, 1]) == [0, 1]

    def test_half_of_a_mask_owned_by_better_ones_drops_it(self):
        boxes = [(0, 0, 12, 4), (0, 2, 12, 6), (0, 3, 12, 7)]
        masks = masks_of(torch.tensor(boxes))
        assert kept(boxes, [0.9, 0.5, 0.4], [0, 1, 2], masks) == [0, 2]
        assert kept(boxes, [0.5, 0.9, 0.4], [0, 1, 2], masks) == [1]

    def test_equal_scores_own_nothing_of_each_other(self):
        boxes = [(0, 0, 6, 6), (0, 0, 6, 6)]
        assert kept(boxes, [0.5, 0.5], [0, 1]) == [0, 1]

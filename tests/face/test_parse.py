"""Masks: where an edit may change the crop."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from countervid.face import parse
from countervid.face.parse import MaskConfig, ParserNet, edit_mask


def head(frames: int = 1, size: int = 64, hair: bool = True, move: float = 0.0) -> Tensor:
    """Labels of an upright head; `move` pixels a frame to the right."""
    y, x = np.mgrid[:size, :size] / size
    pictures = []
    for i in range(frames):
        u = x - move * i / size
        labels = np.full((size, size), parse.BACKGROUND, np.uint8)
        labels[y > 0.8] = parse.CLOTHES
        if hair:
            labels[((u - 0.5) / 0.25) ** 2 + ((y - 0.4) / 0.26) ** 2 < 1] = parse.HAIR
        labels[((u - 0.5) / 0.2) ** 2 + ((y - 0.5) / 0.25) ** 2 < 1] = parse.SKIN
        pictures.append(labels)
    return torch.from_numpy(np.stack(pictures))


def test_the_head_may_change_and_the_far_background_may_not():
    labels = head()
    mask = edit_mask(labels)
    inside = torch.isin(labels, torch.tensor(parse.PARTS["head"], dtype=torch.uint8))
    assert mask.dtype == torch.float32 and mask.shape == labels.shape
    assert mask[inside].min() > 0.99
    assert mask[0, :, :4].max() == 0 and mask[0, :, -4:].max() == 0
    assert mask[0, -4:].max() == 0


def test_there_is_room_for_hair_that_is_not_there_yet():
    bald, haired = head(hair=False), head()
    mask = edit_mask(bald)
    assert mask[haired == parse.HAIR].mean() > 0.9


def test_with_the_edited_labels_the_mask_is_the_union_and_tighter():
    bald, haired = head(hair=False), head()
    union = edit_mask(bald, haired)
    assert union[haired == parse.HAIR].min() > 0.95
    torch.testing.assert_close(union, edit_mask(haired, bald))  # hair that goes needs the same room
    assert union.sum() < edit_mask(bald).sum()


def test_face_alone_leaves_hair():
    labels = head()
    assert edit_mask(labels, config=MaskConfig(part="face"))[0, 12, 32] == 0  # the top of the hair
    assert edit_mask(labels, config=MaskConfig(part="face"))[0, 32, 32] > 0.999


def test_an_occluder_is_never_edited_even_when_it_passes():
    labels = head(9)
    labels[4, 28:44, 20:40] = parse.OCCLUDER
    mask = edit_mask(labels)
    assert mask[labels == parse.OCCLUDER].max() == 0
    assert mask[3, 36, 30] > 0  # its neighbours in time still may be


def test_the_edge_is_soft_and_inside():
    mask = edit_mask(head(size=128))[0]
    assert (mask[:, 1:] - mask[:, :-1]).abs().max() < 0.5
    middle = mask[64]
    assert middle.max() > 0.999 and ((middle > 0.05) & (middle < 0.95)).sum() >= 4


def test_masks_are_steady_over_time():
    labels = head(12)
    labels[::2] = head(hair=False)[0]  # a parser that cannot make up its mind
    jumping, steady = edit_mask(labels, labels, steady=False), edit_mask(labels, labels)
    jump = (jumping[1:] - jumping[:-1]).abs().mean()
    assert (steady[1:] - steady[:-1]).abs().mean() < 0.2 * jump


def test_logits_are_taken_too():
    labels = head()
    logits = torch.nn.functional.one_hot(labels.long(), 9).permute(0, 3, 1, 2).float()
    assert torch.equal(edit_mask(logits), edit_mask(labels))


def test_the_ellipse_is_a_head():
    labels = parse.EllipseParser()(torch.zeros(2, 128, 128, 3, dtype=torch.uint8))
    mask = edit_mask(labels)
    assert mask[:, 64, 64].min() > 0.999 and mask[:, 0].max() == mask[:, :, 0].max() == 0
    assert 0.3 < float(mask.mean()) < 0.75


def test_parser_network_gives_labels_of_each_crop_alone():
    torch.manual_seed(0)
    net = ParserNet()
    assert 0.4e6 < sum(p.numel() for p in net.parameters()) < 0.7e6
    crops = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    labels = parse.NetParser(net)(crops)
    assert labels.shape == (3, 64, 64) and labels.dtype == torch.uint8
    assert torch.equal(parse.NetParser(net)(crops[1:2])[0], labels[1])


def test_parser_network_learns_a_square():
    torch.manual_seed(0)
    net = ParserNet(parse.ParserNetConfig(widths=(8, 8, 16, 16)))
    crops, labels = torch.full((4, 3, 32, 32), -1.0), torch.zeros(4, 32, 32, dtype=torch.long)
    for i in range(4):
        crops[i, :, 4 * i : 4 * i + 14, 8:22] = 1.0
        labels[i, 4 * i : 4 * i + 14, 8:22] = parse.SKIN
    optimiser = torch.optim.AdamW(net.parameters(), 5e-3)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(net(crops), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (net(crops).argmax(1) == labels).float().mean() > 0.98

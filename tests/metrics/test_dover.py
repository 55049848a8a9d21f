"""DOVER: what of a clip is looked at against recorded answers, the two networks against other implementations."""

import doctest
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from countervid.errors import ModelError
from countervid.metrics import dover, dover_networks
from countervid.metrics.base import Eyes, measured
from countervid.metrics.dover import fragments, frame_indices, fuse, load_dover, normalised
from countervid.metrics.dover_networks import Dover, fitting, fragments_between, into_windows, out_of_windows, strangers
from looking_windows import looked

RECORDED = json.loads((Path(__file__).parent / "goldens" / "dover.json").read_text())
GRID = RECORDED["fragment grid of a 256 x 260 video, one draw"]


@pytest.mark.parametrize("module", [dover, dover_networks], ids=lambda module: module.__name__)
def test_examples_in_docstrings_hold(module):
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


@pytest.mark.parametrize("case", RECORDED["fused"])
def test_fusion_agrees_with_the_golden(case):
    assert fuse(case["technical_raw"], case["aesthetic_raw"]) == pytest.approx(case["score"], abs=1e-12)


@pytest.mark.parametrize("seed", [None, 0])
def test_frames_agree_with_the_golden(seed):
    for count, branches in RECORDED["frame_indices_by_clip_length"].items():
        for branch, wanted in branches.items():
            generator = None if seed is None else torch.Generator().manual_seed(seed)
            assert frame_indices(int(count), branch, generator).tolist() == wanted, count


@given(st.integers(195, 2000), st.integers(0, 9))
def test_frames_of_a_long_clip_stay_in_their_segments(count, seed):
    for branch, segments in (("technical", 3), ("aesthetic", 32)):
        numbers = frame_indices(count, branch, torch.Generator().manual_seed(seed)).view(segments, -1)
        starts = torch.arange(segments) * (count // segments)
        assert bool((numbers[:, 0] >= starts).all()) and bool((numbers < (starts + count // segments)[:, None]).all())
        assert bool((numbers.diff(dim=1) == 2).all())


def test_a_clip_without_frames_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        frame_indices(0, "technical")


def where(height, width, generator):
    """Where the patches of `fragments` begin: pictures whose pixels say where they are."""
    rows = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.float32).expand(height, width)
    tiles = fragments(torch.stack([rows, columns, columns])[None], generator)[0]
    corners = tiles[:, ::32, ::32]
    for axis, down, across in ((0, 31, 0), (1, 0, 31)):  # patches are whole
        ends = tiles[axis, 31::32, 31::32]
        assert torch.equal(ends - corners[axis], torch.full((7, 7), float(down + across)))
    return corners[0].long(), corners[1].long()


def test_patches_lie_where_the_golden_has_them():
    assert where(256, 260, None)[0][:, 0].tolist() == [36 * i for i in range(7)]
    seen_rows, seen_columns = set(), set()
    for seed in range(20):
        rows, columns = where(256, 260, torch.Generator().manual_seed(seed))
        seen_rows |= {(i, int(rows[i, j])) for i in range(7) for j in range(7)}
        seen_columns |= {(j, int(columns[i, j])) for i in range(7) for j in range(7)}
    assert seen_rows == {(i, 36 * i + extra) for i in range(7) for extra in range(4)}
    assert seen_columns == {(j, 37 * j + extra) for j in range(7) for extra in range(5)}
    assert {(i, GRID["row"][i][j]) for i in range(7) for j in range(7)} <= seen_rows
    assert {(j, GRID["column"][i][j]) for i in range(7) for j in range(7)} <= seen_columns


def test_a_frame_of_224_px_is_itself():
    frames = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fragments(frames, torch.Generator().manual_seed(1)), frames)


def test_a_small_frame_is_seen_whole():
    frames = torch.zeros(1, 3, 64, 64)
    frames[:, :, 48:, 48:] = 1
    assert fragments(frames)[0, 0, 200:, 200:].min() == 1


def test_pictures_are_normalised_as_published():
    grey = torch.tensor([123.675, 116.28, 103.53])[:, None, None].expand(3, 2, 2) / 255
    clip = normalised(torch.stack([grey, grey + torch.tensor([58.395, 57.12, 57.375])[:, None, None] / 255]))
    assert clip.shape == (1, 3, 2, 2, 2)
    torch.testing.assert_close(clip[:, :, 0], torch.zeros(1, 3, 2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(clip[:, :, 1], torch.ones(1, 3, 2, 2), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def network():
    """Both branches with invented weights of lively size."""
    generator = torch.Generator().manual_seed(0)
    model = Dover().eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "bias_table" in name or "gamma" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        elif parameter.ndim == 1:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        else:
            spread = parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


@pytest.fixture
def two_frames():
    """The shortest clip: one token deep, so that networks of pictures can say what they say of it."""
    return torch.randn(1, 3, 2, 224, 224, generator=torch.Generator().manual_seed(1))


def read_by_transformers(kind, config, state, folder, **options):
    """A model of transformers with these weights, named as its published checkpoints name them; none is missing."""
    config.save_pretrained(folder)
    save_file(
        {name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    model, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    missing = {name for name in report["missing_keys"] if not name.endswith("position_index")}
    assert not missing and not report["unexpected_keys"] and not report["mismatched_keys"]
    return model.eval()


@torch.no_grad()
def test_the_technical_branch_is_a_swin_where_time_and_gates_play_no_part(network, two_frames, tmp_path):
    from transformers import SwinConfig, SwinModel

    own = network.technical_backbone
    state = {}
    for name, value in own.state_dict().items():
        if "relative_position_index" in name or "fragment" in name:
            continue
        if name == "patch_embed.proj.weight":
            value = value.sum(2)  # both frames will be the same
        if name.endswith("bias_table"):
            value = value.view(15, 169, -1)[7]  # no offset in time
        name = name.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        name = name.replace("patch_embed.norm", "embeddings.norm")
        name = name.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")
        name = name.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
        name = name.replace("attn.proj", "attention.output.dense")
        name = name.replace("attn.relative", "attention.self.relative")
        name = ("encoder." if name.startswith("layers") else "") + name
        if name.startswith("norm."):
            name = f"layer{name}"
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[name.replace("attn.qkv", f"attention.self.{part}")] = third
        else:
            state[name] = value
    theirs = read_by_transformers(SwinModel, SwinConfig(), state, tmp_path, add_pooling_layer=False)

    kept = {}
    for name, parameter in own.named_parameters():
        if "fragment" in name:  # as the other table, so that the gate chooses between equals
            kept[name] = parameter.clone()
            parameter.copy_(own.get_parameter(name.replace("fragment", "relative")))
    still = two_frames[:, :, :1].expand(-1, -1, 2, -1, -1)
    found = own(still)
    wanted = theirs(still[:, :, 0]).last_hidden_state
    for name, value in kept.items():
        own.get_parameter(name).copy_(value)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), wanted, atol=2e-4, rtol=1e-4)
    assert float((own(still) - found).abs().max()) > 0.01  # the gate matters otherwise


@torch.no_grad()
def test_the_aesthetic_branch_is_a_convnext_where_time_plays_no_part(network, two_frames, tmp_path):
    from transformers import ConvNextConfig, ConvNextModel

    own = network.aesthetic_backbone
    state = {}
    for name, value in own.state_dict().items():
        if value.ndim == 5:
            value = value.sum(2) if value.shape[2] == 2 else value[:, :, value.shape[2] // 2]  # nothing before or after
        if name.startswith("downsample_layers.0"):
            name = name.replace("downsample_layers.0.0", "embeddings.patch_embeddings")
            name = name.replace("downsample_layers.0.1", "embeddings.layernorm")
        elif name.startswith("downsample_layers"):
            level, rest = name.split(".", 2)[1:]
            name = f"encoder.stages.{level}.downsampling_layer.{rest}"
        elif name.startswith("stages"):
            level, block, rest = name.split(".", 3)[1:]
            rest = rest.replace("norm.", "layernorm.").replace("gamma", "layer_scale_parameter")
            name = f"encoder.stages.{level}.layers.{block}.{rest}"
        else:
            name = name.replace("norm.", "layernorm.")
        state[name] = value
    theirs = read_by_transformers(ConvNextModel, ConvNextConfig(), state, tmp_path)
    still = two_frames[:, :, :1].expand(-1, -1, 2, -1, -1)
    wanted = theirs.layernorm(theirs(still[:, :, 0]).last_hidden_state.permute(0, 2, 3, 1))
    torch.testing.assert_close(own(still)[:, :, 0].permute(0, 2, 3, 1), wanted, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_heads_average_their_map(network):
    features = torch.randn(2, 768, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    head = network.technical_head
    hidden = torch.einsum("oc,bcthw->bothw", head.fc_hid.weight[:, :, 0, 0, 0], features)
    hidden = torch.nn.functional.gelu(hidden + head.fc_hid.bias[:, None, None, None])
    wanted = torch.einsum("c,bcthw->bthw", head.fc_last.weight[0, :, 0, 0, 0], hidden) + head.fc_last.bias
    torch.testing.assert_close(head(features), wanted.mean((1, 2, 3)), atol=1e-5, rtol=1e-5)


def token_places(size, window, shift):
    """Where the tokens of every window come from, `(windows, N, 3)`."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(s) for s in size), indexing="ij"), dim=-1)
    grid = torch.roll(grid, [-s for s in shift], (0, 1, 2))
    return into_windows(grid[None], window)[0]


@pytest.mark.parametrize("size", [(16, 14, 14), (4, 28, 28), (16, 7, 7)])
def test_tokens_meet_only_their_neighbours(size):
    window, shift = fitting(size, True)
    places = token_places(size, window, shift)
    apart = (places[:, :, None] - places[:, None]).abs()
    beyond = (apart >= torch.tensor(window)).any(-1)
    assert torch.equal(strangers(size, window, shift), beyond)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(16, 14, 14), (4, 28, 28)])
def test_gates_count_the_fragments_between_two_tokens(size, shifted):
    window, shift = fitting(size, shifted)
    cells = token_places(size, window, shift)[:, :, 1:] // torch.tensor([size[1] // 7, size[2] // 7])
    wanted = (cells[:, :, None] - cells[:, None]).abs().sum(-1)
    assert torch.equal(fragments_between(size, window, shift).long(), wanted)


def test_windows_go_there_and_back():
    x = torch.arange(2 * 16 * 14 * 14 * 3).view(2, 16, 14, 14, 3)
    assert torch.equal(out_of_windows(into_windows(x, (8, 7, 7)), (16, 14, 14), (8, 7, 7)), x)
    with pytest.raises(ValueError, match="do not tile"):
        fitting((16, 15, 14), False)


def expected_names():
    """Names and shapes of the published state, as its code declares them."""
    widths, found = (96, 192, 384, 768), {}

    def both(name, weight, bias=None):
        found[f"{name}.weight"] = weight
        found[f"{name}.bias"] = weight[:1] if bias is None else bias

    top = "technical_backbone"
    both(f"{top}.patch_embed.proj", (96, 3, 2, 4, 4))
    both(f"{top}.patch_embed.norm", (96,))
    for level, (width, depth, heads) in enumerate(zip(widths, (2, 2, 6, 2), (3, 6, 12, 24), strict=True)):
        for index in range(depth):
            block = f"{top}.layers.{level}.blocks.{index}"
            both(f"{block}.norm1", (width,))
            both(f"{block}.norm2", (width,))
            both(f"{block}.attn.qkv", (3 * width, width))
            both(f"{block}.attn.proj", (width, width))
            both(f"{block}.mlp.fc1", (4 * width, width))
            both(f"{block}.mlp.fc2", (width, 4 * width))
            found[f"{block}.attn.relative_position_bias_table"] = (2535, heads)  # 15 x 13 x 13
            found[f"{block}.attn.relative_position_index"] = (392, 392)
            if level < 3:
                found[f"{block}.attn.fragment_position_bias_table"] = (2535, heads)
        if level < 3:
            both(f"{top}.layers.{level}.downsample.norm", (4 * width,))
            found[f"{top}.layers.{level}.downsample.reduction.weight"] = (2 * width, 4 * width)
    both(f"{top}.norm", (768,))
    top = "aesthetic_backbone"
    both(f"{top}.downsample_layers.0.0", (96, 3, 2, 4, 4))
    both(f"{top}.downsample_layers.0.1", (96,))
    for level in (1, 2, 3):
        both(f"{top}.downsample_layers.{level}.0", (widths[level - 1],))
        both(f"{top}.downsample_layers.{level}.1", (widths[level], widths[level - 1], 1, 2, 2))
    for level, (width, depth) in enumerate(zip(widths, (3, 3, 9, 3), strict=True)):
        for index in range(depth):
            block = f"{top}.stages.{level}.{index}"
            both(f"{block}.dwconv", (width, 1, 3 if index % 3 == 1 else 1, 7, 7))
            both(f"{block}.norm", (width,))
            both(f"{block}.pwconv1", (4 * width, width))
            both(f"{block}.pwconv2", (width, 4 * width))
            found[f"{block}.gamma"] = (width,)
    both(f"{top}.norm", (768,))
    for branch in ("technical", "aesthetic"):
        both(f"{branch}_head.fc_hid", (64, 768, 1, 1, 1))
        both(f"{branch}_head.fc_last", (1, 64, 1, 1, 1))
    return found


def test_parameters_are_called_and_shaped_as_in_the_published_code(network):
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == expected_names()


def test_the_checkpoint_is_read_without_unpickling_code(network, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (pytest.fail, ("code in a checkpoint was run",))

    torch.save(network.state_dict(), tmp_path / "DOVER.pth")
    loaded = load_dover(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True)
    )
    torch.save(Harmful(), tmp_path / "DOVER.pth")
    with pytest.raises(ModelError, match="is not DOVER's published checkpoint"):
        load_dover(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_a_file_that_is_none_is_said(content, tmp_path):
    if content is not None:
        (tmp_path / "DOVER.pth").write_bytes(content)
    with pytest.raises(ModelError, match="DOVER.pth"):
        load_dover(tmp_path)


def test_another_networks_weights_are_said(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "DOVER.pth")
    with pytest.raises(ModelError, match="is not DOVER's published checkpoint"):
        load_dover(tmp_path)


def test_a_damaged_checkpoint_does_not_stop_the_other_numbers(tmp_path):
    (tmp_path / "DOVER.pth").write_bytes(b"half a file")
    missing = {}
    windows = looked("truth", eyes=Eyes(folders={"dover": str(tmp_path)}))
    found = measured(["dover", "clip.consistency"], windows, missing=missing)
    assert list(found) == ["clip.consistency"] and "is not DOVER's published checkpoint" in missing["dover"]


def test_the_metric_needs_weights_and_says_which():
    with pytest.raises(ModelError, match=r"`dover` needs weights .* teowu/DOVER"):
        measured(["dover"], looked("truth"))


class Recorded(Dover):
    """Keeps what it is shown, and gives what can be checked by hand."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.seen = []

    def technical(self, fragments):
        self.seen.append(fragments)
        return fragments.mean((1, 2, 3, 4))

    def aesthetic(self, frames):
        return frames.mean((1, 2, 3, 4))


def test_the_metric_shows_each_branch_its_frames():
    eyes, model = Eyes(), Recorded()
    eyes.folders["dover"] = ""
    eyes.get("dover", lambda _: model)
    whole = measured(["dover"], looked("truth", eyes=eyes))["dover"]
    frames = looked("truth")[0].frames["counterfactual"]
    assert [clip.shape for clip in model.seen] == [(1, 3, 32, 224, 224)] * 3  # 128 px: one draw says it all
    shown = [normalised(fragments(frames[numbers])) for numbers in frame_indices(6, "technical").split(32)]
    for seen, wanted in zip(model.seen, shown, strict=True):
        torch.testing.assert_close(seen, wanted, atol=1e-5, rtol=0)
    technical = sum(float(clip.mean()) for clip in shown) / 3
    first = torch.nn.functional.interpolate(frames[:1], size=(224, 224), mode="bilinear", antialias=True)
    assert whole == pytest.approx(fuse(technical, float(normalised(first).mean())), abs=1e-5)
    assert measured(["dover"], looked("truth", size=2, eyes=eyes))["dover"] == pytest.approx(whole, abs=1e-9)


def test_draws_differ_and_their_mean_does_not():
    frames = torch.rand(8, 3, 256, 300, generator=torch.Generator().manual_seed(0))

    def score(seed):
        generator = torch.Generator().manual_seed(seed)
        return dover.raw_scores(lambda numbers: frames[numbers], 8, Recorded(), generator)

    assert score(0) == score(0) != score(1)
    assert score(0)[1] == score(1)[1]  # whole frames leave nothing to draw
    assert math.isfinite(fuse(*score(0)))

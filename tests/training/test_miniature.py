"""Every stage of the miniature trains on rendered people and writes a model that loads; the bundled ones are good."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn
from typer.testing import CliRunner

from countervid.autoencoder.classifier import AttributeClassifier
from countervid.autoencoder.codec import VAE
from countervid.autoencoder.faces import load_networks
from countervid.autoencoder.identity import IdentityNet
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.cli.main import app
from countervid.embeddings.contrastive import Contrastive
from countervid.errors import ModelError
from countervid.face.landmarks import LandmarkNet
from countervid.face.parse import ParserNet
from countervid.metrics.examiner import Examiner
from countervid.models import available, bundled
from countervid.phantom.dataset import DatasetConfig, PhantomFrames, people_of, render_dataset
from countervid.training.crops import images, states
from countervid.training.miniature import STAGES
from countervid.training.miniature.parser import with_occluders
from countervid.training.run import train_stage


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> PhantomFrames:
    """Eight unseen people in two takes, with a true counterfactual each: 32 crops, rendered once.

    These eight show every value of every attribute, and one of them holds something before the face.
    """
    folder = tmp_path_factory.mktemp("people")
    split = people_of("validation", 92)[84:]
    return PhantomFrames(render_dataset(folder, split, DatasetConfig(takes=2, frames=1, pairs=True)), split)


def test_states_gather_the_takes_of_one_person_under_one_set_of_attributes(people: PhantomFrames) -> None:
    table = states(people)
    assert table.shape == (16, 2, 1)
    for state in table.flatten(1):
        assert people.column("person")[state].unique().numel() == 1
        assert (people.column("attributes")[state] == people.column("attributes")[state[0]]).all()
        assert people.column("take")[state].tolist() == [0, 1]


def loads(models: Path, name: str) -> nn.Module:
    """The model of a stage, from its folder."""
    loaders: dict[str, Callable[[Path], nn.Module]] = {
        "vae": VAE.from_folder,
        "identity": IdentityNet.from_folder,
        "landmarks": LandmarkNet.from_folder,
        "parser": ParserNet.from_folder,
        "examiner": Examiner.from_folder,
        "classifier": AttributeClassifier.from_pretrained,
        "clip": lambda folder: Contrastive.from_pretrained(folder).model,
        "dva": DiffusionAutoencoder.from_pretrained,
        "text-to-image": lambda folder: StableDiffusionPipeline.from_pretrained(folder).unet,
    }
    return loaders[name](models / STAGES[name].target)


def follows_its_model(name: str, people: PhantomFrames, models: Path) -> bool:
    """Whether every tensor of a stage's loss goes with the model to another device: none is left behind on the CPU."""
    network, loss = STAGES[name].build(people, 2, models)
    if loss is None:
        return True
    network.to("meta")
    return {value.device.type for value in loss(torch.Generator().manual_seed(0)).values()} == {"meta"}


@pytest.mark.parametrize(
    "name", ["vae", "identity", "landmarks", "parser", "examiner", "classifier", "clip", "text-to-image"]
)
def test_a_stage_trains_and_its_model_loads_again(name: str, people: PhantomFrames, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(bundled("vae").parent, models)
    figures = train_stage(STAGES[name], people, people, tmp_path / "run", models, steps=1, batch=2)
    assert figures and all(isinstance(value, float) for value in figures.values())
    card = (models / STAGES[name].target / "README.md").read_text()
    assert ("L-BFGS" if name == "classifier" else "steps of 2") in card
    assert all(torch.isfinite(p).all() for p in loads(models, name).parameters())
    if name == "vae":
        latents = VAE.from_folder(models / "vae").encode(images(people, torch.arange(16)))
        assert latents.std().item() == pytest.approx(1, abs=0.1)  # the saved scale makes it so
    assert follows_its_model(name, people, models)


def test_the_autoencoder_goes_through_its_three_stages(people: PhantomFrames, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(bundled("vae").parent, models)
    for name in ("dva", "couple", "recouple"):
        train_stage(STAGES[name], people, people, tmp_path / name, models, steps=1, batch=2)
        assert follows_its_model(name, people, models), name
    commands = [line for line in (models / "dva/README.md").read_text().splitlines() if "--stage" in line]
    assert [line.split()[4] for line in commands] == ["dva", "couple", "recouple"]  # all that the weights went through
    assert all(torch.isfinite(p).all() for p in loads(models, "dva").parameters())


def test_copied_occluders_cover_picture_and_labels_alike(people: PhantomFrames) -> None:
    rows = torch.arange(4)
    donor = torch.nonzero(people.masks(torch.arange(len(people))).flatten(1).eq(8).any(1)).flatten()[:1]
    before, labels = images(people, rows), people.masks(rows).long()
    after, marked = with_occluders(before.clone(), labels.clone(), people, donor, torch.Generator().manual_seed(0))
    covered = marked[0] == 8
    assert covered.float().mean() > 0.005 and torch.equal(after[1:], before[1:])
    assert torch.equal(after[0][:, ~covered], before[0][:, ~covered])
    assert not torch.equal(after[0][:, covered], before[0][:, covered])
    colours = {tuple(pixel) for pixel in images(people, donor)[0].flatten(1).T.tolist()}
    assert {tuple(pixel) for pixel in after[0][:, covered].T.tolist()} <= colours


def test_training_goes_on_from_given_weights(people: PhantomFrames, tmp_path: Path) -> None:
    def trained(name: str, **options: int | Path) -> Tensor:
        train_stage(
            STAGES["parser"], people, people, tmp_path / "runs" / name, tmp_path / name, steps=1, batch=2, **options
        )
        net = ParserNet.from_folder(tmp_path / name / "parser")
        return torch.cat([p.flatten() for p in net.parameters()])

    first, fresh = trained("first"), trained("fresh", seed=1)
    further = trained("further", seed=1, start=tmp_path / "first")
    assert (further - first).norm() < 0.1 * (fresh - first).norm()
    assert "from the weights with SHA-256" in (tmp_path / "further" / "parser" / "README.md").read_text()
    with pytest.raises(ModelError, match="No weights in .*nowhere"):
        trained("lost", start=tmp_path / "nowhere")


def test_a_stage_that_goes_on_from_another_keeps_to_it(people: PhantomFrames, tmp_path: Path) -> None:
    """`--stage all --start OLD` must not put an old classifier in place of the one just solved."""
    models = tmp_path / "models"
    for name in ("vae", "identity"):
        train_stage(STAGES[name], people, people, tmp_path / "runs" / name, models, steps=1, batch=4)
    solved, loss = STAGES["classifier"].build(people, 1, models)
    assert loss is None
    train_stage(STAGES["classifier"], people, people, tmp_path / "runs" / "c", models, start=bundled("dva").parent)
    written = AttributeClassifier.from_pretrained(models / "dva" / "classifier")
    for name, value in solved.state_dict().items():
        assert torch.equal(written.state_dict()[name], value), name


def test_a_stage_says_what_it_stands_on(people: PhantomFrames, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs `vae`.*--stage vae"):
        train_stage(STAGES["dva"], people, people, tmp_path / "run", tmp_path / "models", steps=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "vea"], "`vea` is not a stage"),
        ([], "Nothing to do"),
        (["--stage", "vae", "--people", "0"], "at least 1|1 to"),
        (["--stage", "vae", "--start", "nowhere"], "`--start nowhere` is not a folder"),
        (["--stage", "vae", "--device", "nonsense"], "`nonsense` cannot be used"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "miniature", *arguments, "--data", str(tmp_path / "data")])
    assert result.exit_code == 2
    assert any(part in result.output for part in message.split("|"))


BUNDLED = pytest.mark.skipif(
    not {"vae", "identity", "landmarks", "examiner", "dva"} <= set(available()), reason="no miniature is bundled yet"
)


@BUNDLED
def test_the_bundled_autoencoder_keeps_a_crop(people: PhantomFrames) -> None:
    assert STAGES["vae"].evaluate(VAE.from_folder(bundled("vae")), people, Path())["PSNR (dB)"] > 28


@BUNDLED
def test_the_bundled_landmarks_lie_on_the_face(people: PhantomFrames) -> None:
    figures = STAGES["landmarks"].evaluate(LandmarkNet.from_folder(bundled("landmarks")), people, Path())
    assert figures["error, % of the eyes' distance"] < 4


@BUNDLED
def test_crops_from_files_get_their_landmarks_from_the_network(people: PhantomFrames) -> None:
    roles = ("identity", "vae", "landmarks")
    networks = load_networks({role: bundled(role) for role in roles}, torch.device("cpu"))
    rows = torch.nonzero(people.column("occluded") == 0).flatten()
    pictures, true = images(people, rows), (people.column("landmarks")[rows] + 0.5) / people.size
    found = networks.pose(pictures, torch.empty(0))
    assert (found - networks.pose(pictures, true)).abs().mean() < 0.01  # of the crop's side
    without = load_networks({role: bundled(role) for role in roles[:2]}, torch.device("cpu"))
    with pytest.raises(ModelError, match="need the network `landmarks`"):
        without.pose(pictures, torch.empty(0))


@BUNDLED
def test_the_bundled_identity_knows_a_person_again(people: PhantomFrames) -> None:
    figures = STAGES["identity"].evaluate(IdentityNet.from_folder(bundled("identity")), people, Path())
    assert figures["same or other (%)"] >= 95


@BUNDLED
def test_the_bundled_classifier_reads_the_published_attributes(people: PhantomFrames) -> None:
    classifier = AttributeClassifier.from_pretrained(bundled("dva") / "classifier")
    net = IdentityNet.from_folder(bundled("identity"))
    said = classifier.predict(net(images(people, people.factual)))
    right = [
        classifier.variables[name].index(one[name]) == int(code)
        for name in ("age", "gender", "beard", "bald")
        for one, code in zip(said, people.attribute(name)[people.factual], strict=True)
    ]
    assert sum(right) >= 0.9 * len(right)


@pytest.mark.skipif("clip" not in available(), reason="no CLIP is bundled yet")
def test_the_bundled_clip_reads_without_training_in_words_that_people_use(people: PhantomFrames) -> None:
    clip = Contrastive.from_pretrained(bundled("clip"))
    rows = torch.nonzero(people.column("occluded") == 0).flatten()
    seen = F.normalize(clip.images(images(people, rows)), dim=1)
    pairs = {
        "age": ("a photo of a youthful person", "an elderly person"),
        "gender": ("this is a lady", "this is a gentleman"),
        "beard": ("a clean-shaven face", "he has a full beard"),
        "bald": ("a face with a full head of hair", "somebody hairless"),
        "glasses": ("a person without glasses", "a bespectacled person"),
    }
    right = []
    for name, texts in pairs.items():
        told = F.normalize(clip.texts(texts), dim=1)
        right.append(((seen @ told.T).argmax(1) == people.attribute(name)[rows]).float().mean())
    assert torch.stack(right).mean() > 0.9, right

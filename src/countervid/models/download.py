"""Published weights fetched from where their authors put them, only when somebody asks for it by name.

A download that was cut goes on where it stopped. Authors who publish no checksum are taken at their first word: the
SHA-256 of the first complete download is pinned, and a later one must be the same.
"""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from countervid.errors import ModelError, OutputError
from countervid.files.names import safe_name
from countervid.files.whole import write_whole
from countervid.models.registry import SUMS, recorded, sha256

Progress = Callable[[int, int], None]  # bytes there, bytes in all (0: unknown)

_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="


@dataclass(frozen=True)
class RemoteFile:
    """One file of a release."""

    name: str
    url: str
    sha256: str = ""  # empty where the authors publish none


@dataclass(frozen=True)
class Release:
    """What somebody published, and on which terms."""

    what: str
    authors: str
    home: str
    licence: str
    files: tuple[RemoteFile, ...]


RELEASES: Mapping[str, Release] = {
    "dva": Release(
        what="Diffusion Video Autoencoders, 256 px (arXiv:2212.02802)",
        authors="Gyeongman Kim, Hajin Shim, Hyunsu Kim, Yunjey Choi, Junho Kim, Eunho Yang",
        home="https://github.com/gmkim-ai/Diffusion-Video-Autoencoders",
        licence="code: MIT; the weights come without terms of their own, and were trained on VoxCeleb1 and CelebA-HQ, "
        "which are for research",
        files=(
            RemoteFile("epoch=51-step=1000000.ckpt", _DRIVE + "1Q6z7Wmo9xve5SgfDJExohpDSSNi4QxcH"),
            RemoteFile("latent.pkl", _DRIVE + "1J_eAs5-KWn--kmcqx5S-QjVPskTczTMU"),
            RemoteFile("classifier.ckpt", _DRIVE + "1nddbwuAvIVEqKkkmUF96nJj91jVmAdtR"),
        ),
    ),
    "lpips": Release(
        what="LPIPS v0.1 on AlexNet, for the metric `lpips` (arXiv:1801.03924)",
        authors="Richard Zhang, Phillip Isola, Alexei A. Efros, Eli Shechtman, Oliver Wang; AlexNet: torchvision",
        home="https://github.com/richzhang/PerceptualSimilarity",
        licence="linear weights: BSD-2-Clause; AlexNet: BSD-3-Clause, trained on ImageNet, which is for research",
        files=(
            RemoteFile(
                "alexnet-owt-7be5be79.pth",
                "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
                "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            ),
            RemoteFile(
                "alex.pth",
                "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/alex.pth",
                "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
            ),
        ),
    ),
    "i3d": Release(
        what="I3D on Kinetics-400 as TorchScript, for FVD and the metric `i3d-distance` (arXiv:1705.07750)",
        authors="Joao Carreira, Andrew Zisserman; TorchScript: StyleGAN-V",
        home="https://github.com/universome/stylegan-v",
        licence="Apache-2.0 as published by its authors; the TorchScript file comes without terms of its own",
        files=(
            RemoteFile(
                "i3d_torchscript.pt",
                "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
                "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
            ),
        ),
    ),
    "dover": Release(
        what="DOVER, for the metric `dover` (arXiv:2211.04894)",
        authors="Haoning Wu, Erli Zhang, Liang Liao, Chaofeng Chen, Jingwen Hou, Annan Wang, Wenxiu Sun, Qiong Yan, "
        "Weisi Lin",
        home="https://github.com/VQAssessment/DOVER",
        licence="MIT by the card of teowu/DOVER; later versions of the code: S-Lab License 1.0, non-commercial",
        files=(RemoteFile("DOVER.pth", "https://github.com/VQAssessment/DOVER/releases/download/v0.1.0/DOVER.pth"),),
    ),
}


def fetch(file: RemoteFile, folder: Path, progress: Progress | None = None) -> Path:
    """The file in `folder`, downloaded unless it is there, and checked against its published or pinned SHA-256.

    Raises:
        ModelError: It cannot be had, is cut short (the same call goes on), or is not what it was.
        OutputError: The folder cannot be written.
    """
    safe_name(file.name, "file", file.url)
    target, partial = folder / file.name, folder / f".{file.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the folder {folder}: {error.strerror}. Choose another.") from error
    pins = recorded(folder)
    wanted = file.sha256 or pins.get(file.name, "")
    if not target.exists():
        _download(file, partial, progress)
        found = sha256(partial)
        if wanted and found != wanted:
            partial.unlink()
            raise ModelError(
                f"{file.url} no longer gives the file it gave before (SHA-256 {found[:16]}..., was {wanted[:16]}...). "
                f"If its authors renewed it, remove its line from {folder / SUMS}."
            )
        os.replace(partial, target)
    elif wanted and sha256(target) != wanted:
        raise ModelError(
            f"`{target}` is not the file that was downloaded (its SHA-256 differs). Delete it and run again."
        )
    pins[file.name] = sha256(target)
    write_whole(folder / SUMS, "".join(f"{pin}  {name}\n" for name, pin in sorted(pins.items())))
    return target


def _download(file: RemoteFile, partial: Path, progress: Progress | None) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(file.url, headers={"User-Agent": "countervid"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise ModelError(
                    f"{file.url} answers with a web page instead of `{file.name}` (often: too many downloads today). "
                    "Open it in a browser, save the file, and import it: `countervid models import`."
                )
            if answer.status != 206:  # the whole file, whatever was asked
                start = 0
            total = start + int(answer.headers.get("Content-Length") or 0)
            done = start
            with partial.open("ab" if start else "wb") as output:
                while chunk := answer.read(_CHUNK):
                    output.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, max(total, done))
            if done < total:
                raise ModelError(
                    f"{file.url} broke off after {done:,} of {total:,} bytes. Run the same command again: it goes on."
                )
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send
            return
        raise ModelError(f"{file.url} answers {error.code} {error.reason}. Try again later.") from None
    except (urllib.error.URLError, TimeoutError, http.client.HTTPException, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise ModelError(f"{file.url} cannot be reached ({reason}). Run the same command again: it goes on.") from None

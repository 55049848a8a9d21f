// One video holds all panels side by side, so that they never drift apart; canvases show their parts of it.
const video = document.createElement("video");
const poster = new Image();
const wide = document.getElementById("left"), wipe = document.getElementById("wipe"), handle = document.querySelector(".handle");
const seek = document.getElementById("seek"), play = document.getElementById("play"), clock = document.getElementById("clock");
const panels = [...document.querySelectorAll("canvas[data-panel]")];
const W = MEDIA.width, H = MEDIA.height;
let picture = poster;

function show() {
  if (!(picture.naturalWidth || picture.videoWidth)) return;
  for (const canvas of panels) canvas.getContext("2d").drawImage(picture, canvas.dataset.panel * W, 0, W, H, 0, 0, W, H);
  const pen = wide.getContext("2d"), cut = Math.round(W * wipe.value / 1000);
  if (cut > 0) pen.drawImage(picture, 0, 0, cut, H, 0, 0, cut, H);
  if (cut < W) pen.drawImage(picture, W + cut, 0, W - cut, H, cut, 0, W - cut, H);
  handle.style.left = wipe.value / 10 + "%";
  clock.textContent = video.currentTime.toFixed(2) + " s";
}
function tick() { if (!video.seeking) seek.value = Math.round(video.currentTime * MEDIA.fps); show(); if (!video.paused) requestAnimationFrame(tick); }
function start() { video.play().then(() => { play.textContent = "❚❚"; tick(); }, () => { play.textContent = "▶"; }); }

poster.onload = show;
poster.src = MEDIA.poster;
video.muted = video.loop = video.playsInline = true;
video.preload = "auto";
video.addEventListener("loadeddata", () => { picture = video; if (!matchMedia("(prefers-reduced-motion: reduce)").matches) start(); });
video.addEventListener("seeked", show);
video.src = MEDIA.video;
wipe.addEventListener("input", show);
play.addEventListener("click", () => { if (video.paused) start(); else { video.pause(); play.textContent = "▶"; } });
seek.addEventListener("input", () => { video.pause(); play.textContent = "▶"; video.currentTime = (Number(seek.value) + 0.5) / MEDIA.fps; });

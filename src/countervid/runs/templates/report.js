// Sheets of stills: one slider moves every picture, every cursor, and shows exactly the frame it says.
const W = MEDIA.width, H = MEDIA.height, last = MEDIA.numbers.length - 1;
const wide = document.getElementById("left"), wipe = document.getElementById("wipe"), handle = document.querySelector(".handle");
const seek = document.getElementById("seek"), play = document.getElementById("play"), clock = document.getElementById("clock");
const panels = [...document.querySelectorAll("canvas[data-panel]")], cursors = [...document.querySelectorAll("path.cursor")];
const against = [...document.querySelectorAll("input[name=against]")], leftTag = document.querySelector(".tag.l");
const sheets = MEDIA.sheets.map((source) => { const image = new Image(); image.onload = show; image.src = source; return image; });
let playing = false, began = 0;

function place(index) { return [(index % MEDIA.columns) * W, Math.floor(index / MEDIA.columns) * H]; }
function show() {
  const index = Number(seek.value), number = MEDIA.numbers[index], [x, y] = place(index);
  for (const canvas of panels) draw(canvas.getContext("2d"), canvas.dataset.panel, x, y, 0, W);
  const left = Number((against.find((one) => one.checked) || { value: 0 }).value), cut = Math.round(W * wipe.value / 1000);
  draw(wide.getContext("2d"), left, x, y, 0, cut);
  draw(wide.getContext("2d"), 1, x, y, cut, W);
  leftTag.textContent = left ? "truth" : "factual";
  handle.style.left = wipe.value / 10 + "%";
  const told = `frame ${number} of ${MEDIA.frames} · ${(number / MEDIA.fps).toFixed(2)} s`;
  clock.textContent = told;
  seek.setAttribute("aria-valuetext", told);
  for (const cursor of cursors) {
    const { left, right } = cursor.dataset, share = number / Math.max(1, MEDIA.frames - 1);
    cursor.setAttribute("transform", `translate(${Number(left) + share * (right - left)} 0)`);
  }
}
function draw(pen, panel, x, y, from, to) {
  const sheet = sheets[panel];
  if (sheet.naturalWidth && to > from) pen.drawImage(sheet, x + from, y, to - from, H, from, 0, to - from, H);
}
function tick(now) {
  if (!playing) return;
  const number = Math.floor((now - began) / 1000 * MEDIA.fps) % MEDIA.frames;
  let index = last;
  while (index > 0 && MEDIA.numbers[index] > number) index--;
  if (index !== Number(seek.value)) { seek.value = index; show(); }
  requestAnimationFrame(tick);
}
function run(on) {
  playing = on;
  play.textContent = on ? "❚❚" : "▶";
  play.setAttribute("aria-pressed", on);
  if (on) { began = performance.now() - MEDIA.numbers[seek.value] / MEDIA.fps * 1000; requestAnimationFrame(tick); }
}

for (const input of [wipe, ...against]) input.addEventListener("input", show);
seek.addEventListener("input", () => { run(false); show(); });
play.addEventListener("click", () => run(!playing));
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, button, summary, pre, a") || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === " ") run(!playing);
  else if (step) { run(false); seek.value = Number(seek.value) + step; show(); }
  else return;
  event.preventDefault();
});
show();
if (!matchMedia("(prefers-reduced-motion: reduce)").matches && last > 0) run(true);

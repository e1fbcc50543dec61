// Videos play by themselves without this. With it they keep step, and rest while they are out of sight.
for (const group of document.querySelectorAll("[data-films]")) {
  const films = [...group.querySelectorAll("video")], lead = films[0];
  const slider = group.querySelector("input"), button = group.querySelector("button");
  let wanted = !matchMedia("(prefers-reduced-motion: reduce)").matches, seen = false;
  const align = () => { for (const film of films) film.currentTime = lead.currentTime; };
  const update = () => {
    for (const film of films) wanted && seen && film.offsetParent ? film.play().catch(() => {}) : film.pause();
    button.textContent = wanted ? "Pause" : "Play";
  };
  button.onclick = () => { wanted = !wanted; if (wanted) align(); update(); };
  slider.oninput = () => {
    wanted = false; update();
    for (const film of films) if (film.duration) film.currentTime = slider.value * (film.duration - 0.01);
  };
  lead.addEventListener("timeupdate", () => {
    if (!wanted || !lead.duration) return;
    slider.value = lead.currentTime / lead.duration;
    for (const film of films) {
      const apart = Math.abs(film.currentTime - lead.currentTime);
      if (apart > 0.13 && apart < lead.duration - 0.4) film.currentTime = lead.currentTime;
    }
  });
  for (const fold of group.querySelectorAll("details")) fold.ontoggle = () => { align(); update(); };
  new IntersectionObserver(([entry]) => { seen = entry.isIntersecting; update(); }).observe(group);
}

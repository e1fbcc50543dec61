// Says which pixel of a picture is under the pointer, as `dexworld plan --from u,v --to u,v` takes it.
for (const image of document.querySelectorAll("[data-pixels]")) {
  const output = image.closest("figure").querySelector("output");
  image.addEventListener("pointermove", (event) => {
    const box = image.getBoundingClientRect();
    const u = (event.clientX - box.left) / box.width * image.naturalWidth;
    const v = (event.clientY - box.top) / box.height * image.naturalHeight;
    output.textContent = `${Math.floor(u)},${Math.floor(v)}`;
  });
}

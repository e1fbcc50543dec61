// Search runs in a worker. Browsers refuse workers to pages that are opened from a disk: there a hidden frame does its work.
// As between real workers, messages are copied and arrive later.
if (location.protocol === "file:") {
  const send = (data, receive) => {
    const copy = structuredClone(data);
    setTimeout(() => receive(new MessageEvent("message", { data: copy })));
  };
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => send(data, (event) => this.onmessage && this.onmessage(event));
      const script = inside.document.createElement("script");
      script.src = new URL(url, location);
      this.loaded = new Promise((resolve, reject) => {
        script.onload = () => resolve(inside);
        script.onerror = reject;
      });
      inside.document.body.append(script);
    }

    postMessage(data) {
      this.loaded.then(
        (inside) => send(data, (event) => inside.onmessage(event)),
        (event) => this.onerror && this.onerror(event),
      );
    }

    terminate() {
      this.frame.remove();
    }
  };
}

// Search runs in a worker, and browsers start no worker for a page that is read from the disk.
// There, a hidden frame does its work: it loads the script of the worker and exchanges messages.
// The theme would load such a stand-in from a server (the package iframe-worker); this is our own.
(() => {
  if (location.protocol !== "file:") return;

  // what a worker's script finds around it; runs in the frame
  const surroundings = () => {
    window.postMessage = (message) => parent.postMessage(message, "*");
    window.importScripts = async (...urls) => {
      for (const url of urls) {
        await new Promise((resolve) => {
          const script = document.createElement("script");
          script.src = url;
          script.onload = resolve;
          document.body.append(script);
        });
      }
    };
  };

  class FrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      addEventListener("message", (event) => {
        if (event.source !== inside) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        this.onmessage?.(message);
      });
      inside.document.open();
      inside.document.write(
        `<script>(${surroundings})()</script><script src="${url}"></script>`
      );
      inside.document.close();
      // only now: document.open() has taken all listeners away
      this.loaded = new Promise((resolve) => inside.addEventListener("load", resolve));
    }

    postMessage(data) {
      this.loaded.then(() =>
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
      );
    }

    terminate() {
      this.frame.remove();
    }
  }

  window.Worker = FrameWorker;
})();

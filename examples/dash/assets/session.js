// A page that is left takes its session's state with it. What this misses goes when it has been idle for long enough.
addEventListener("pagehide", () => {
    const page = document.getElementById("page");
    if (page) navigator.sendBeacon("end", page.dataset.session);
});

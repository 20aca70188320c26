// What scrolls can be reached with the Tab key. The theme sees to that when the window changes, not when a fold opens.
document.addEventListener("toggle", () => window.dispatchEvent(new Event("resize")), true);

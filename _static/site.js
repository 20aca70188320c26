// What scrolls can be reached with the Tab key. The theme sees to that when the window changes, not when a fold opens.
document.addEventListener("toggle", () => window.dispatchEvent(new Event("resize")), true);

// Formulas are typeset once the reader moves, or where one is on the screen: MathJax is large, and most first screens
// have no formula.
const mathjax = document.querySelector("meta[name=mathjax]")?.content;
if (mathjax) {
  const signs = ["scroll", "keydown", "pointerdown", "pointermove", "beforeprint"];
  const near = new IntersectionObserver(seen => seen.some(one => one.isIntersecting) && start(), {rootMargin: "100px"});
  const start = () => {
    near.disconnect();
    signs.forEach(sign => removeEventListener(sign, start));
    document.head.append(Object.assign(document.createElement("script"), {src: mathjax}));
  };
  signs.forEach(sign => addEventListener(sign, start, {passive: true}));
  addEventListener("load", () => document.querySelectorAll(".math").forEach(formula => near.observe(formula)));
}

// A search result quotes whole words of prose: no code, no outputs, and of formulas only those that read as typed.
if (typeof Search !== "undefined") {
  const leftOut = "h1, .section-number, .headerlink, .launch-line, .cell, pre, script, style";
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html").querySelector("article");
    const part = (anchor && page?.querySelector(anchor)) || page;
    part?.querySelectorAll(leftOut).forEach(e => e.remove());
    part?.querySelectorAll(".math").forEach(e => {
      e.innerHTML = e.innerHTML.replace(/^\\\(|\\\)$/g, "").replace(/\\([a-z]+) ?/gi, "&$1;"); // \tau: &tau;
      e.replaceWith(/[\\{}^&]/.test(e.textContent) ? "…" : e.textContent);
    });
    part?.querySelectorAll("h2, h3, h4, p, li, dt, dd, th, td").forEach(e => e.append(" "));
    return part?.textContent.replace(/\s+/g, " ").trim() ?? "";
  };
  const summary = Search.makeSearchSummary;
  Search.makeSearchSummary = (...given) => {
    const quote = summary(...given);
    if (quote) quote.textContent = quote.textContent.replace(/^\.{3}\S*/, "…").replace(/\S*\.{3}$/, "…");
    return quote;
  };
}

for (const button of document.querySelectorAll("button[data-keyspace]")) {
  button.addEventListener("click", () => {
    const chosen = button.dataset.keyspace;
    for (const other of document.querySelectorAll("button[data-keyspace]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    for (const dots of document.querySelectorAll("path[data-keyspace]")) {
      dots.style.display = chosen === "" || dots.dataset.keyspace === chosen ? "" : "none";
    }
  });
}

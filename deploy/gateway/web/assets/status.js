"use strict";
// Requests another attempt, with the operator's token.
const form = document.getElementById("retry");
if (form) {
  const token = form.querySelector("input");
  const note = document.getElementById("note");
  token.value = sessionStorage.getItem("token") || "";
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const address = event.submitter.dataset.address;
    note.textContent = "";
    try {
      const answer = await fetch(address, { method: "POST", headers: { Authorization: "Bearer " + token.value } });
      note.textContent = (await answer.text()).trim();
      if (answer.ok) {
        sessionStorage.setItem("token", token.value);
        setTimeout(() => location.reload(), 1500);
      }
    } catch (error) {
      note.textContent = "The gateway does not respond.";
    }
  });
}

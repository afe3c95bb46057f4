// Follow the browser's choice of light or dark.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
follow();
dark.addEventListener("change", follow);
SwaggerUIBundle({ url: "openapi.json", dom_id: "#routes", deepLinking: true, validatorUrl: null });

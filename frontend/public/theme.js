// Runs before the first paint, so that a stored theme never flashes. A file of its own because the
// content security policy allows no inline scripts.
try {
  const theme = localStorage.getItem("clipwise.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage can be forbidden; the system's theme is then used.
}

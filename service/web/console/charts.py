"""Charts as SVG: pure functions of numbers, drawn by the server."""

"""Pictures of a run's result as SVG text: plots and the graph. They follow the page's colours through CSS variables."""

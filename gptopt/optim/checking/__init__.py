"""Does an optimizer keep what every optimizer of gptopt promises? ``gptopt optim check``."""

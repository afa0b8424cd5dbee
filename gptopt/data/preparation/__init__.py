"""From text to token shards: ``gptopt data prepare`` and ``gptopt data train-tokenizer``."""

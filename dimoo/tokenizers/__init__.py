"""Vocabulary, modality tokenizers, layout and prompt templates: media and words to token sequences and back."""

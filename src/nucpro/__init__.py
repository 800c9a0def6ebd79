"""nucpro: joined DNABERT-S and protein language model embeddings of viral and host sequences."""

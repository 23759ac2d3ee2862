"""Linear systems that are fitted to the training months, as references and as bases."""

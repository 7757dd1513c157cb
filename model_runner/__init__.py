"""The model runner: a granted job goes in, one outcome comes out; the only folder that touches weights or a model."""

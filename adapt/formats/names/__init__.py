"""Names of layers: diffusers', the models' own (`native`, `transformers`, `unet`), text encoders', and which model it is, told by
the layers (`families`)."""

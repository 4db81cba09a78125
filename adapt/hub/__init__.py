"""The Hub: pushing an adapter, and pulling one. Upload calls of huggingface_hub stand only here."""

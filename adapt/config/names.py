"""Names that other trainers use for our settings."""

from __future__ import annotations

OTHER_NAMES = {
    **{"train_batch_size": "batch_size", "max_train_steps": "steps", "gradient_accumulation_steps": "accumulation"},
    **{"network_dim": "rank", "lora_rank": "rank", "network_alpha": "alpha", "lora_alpha": "alpha"},
    **{"lora_dropout": "dropout", "network_dropout": "dropout", "lr": "learning_rate", "lr_scheduler": "schedule"},
    **{"lr_warmup_steps": "warmup", "mixed_precision": "precision", "snr_gamma": "min_snr_gamma"},
    **{"caption_dropout_rate": "caption_dropout", "instance_prompt": "trigger", "trigger_word": "trigger"},
    **{"checkpointing_steps": "save_every", "save_every_n_steps": "save_every", "validation_prompt": "previews"},
    **{"sample_prompts": "previews", "random_flip": "flip", "flip_aug": "flip", "target_modules": "targets"},
}
"""What diffusers' scripts, peft and kohya call these settings."""

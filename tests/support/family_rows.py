"""The families of models that ComfyUI knows, one row of data each.

families.py makes models of them. Sizes are a layer or two and the smallest widths that the
networks' own rules allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FAMILIES", "Family"]

WIDTH = 32  # of text features, where a network does not fix it


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        name: As users say it.
        kind: Class in comfy.supported_models that the host must recognise.
        sizes: Arguments of the network's class.
        latents: Shape of one latent, or of several that are sampled together (video, audio).
        width: Of the text features.
        options: What else the conditioning holds: a number, the shape of a tensor, or a list of
            whole numbers.
        marks: Sizes by which the host recognises the published weights, where it goes by sizes.
        state: Shapes of what a checkpoint holds beside the network.
        cut: Lists of layers, by name, whose length the class fixes, to how many are left of them.
        of: What one latent is.
        rows: How many rows of a batch the host takes in one call: 1, or 2 for any number.
        alone: Whether the host's network gives a row in a batch what it gives it alone.
    """

    name: str
    kind: str
    sizes: Mapping[str, Any]
    latents: tuple[tuple[int, ...], ...]
    width: int = WIDTH
    options: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cut: Mapping[str, int] = field(default_factory=dict)
    of: str = "pictures"
    rows: int = 2
    alone: bool = True

    @property
    def nested(self) -> bool:
        """Whether several latents are sampled together."""
        return len(self.latents) > 1


PICTURE, DEEP_PICTURE, VIDEO = ((16, 8, 8),), ((16, 1, 8, 8),), ((16, 3, 8, 8),)
POOLED = {"pooled_output": (16,)}
MASK = {"attention_mask": [1, 1, 1, 1, 1]}
FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 16, "context_in_dim": WIDTH,
    "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1, "depth": 1, "depth_single_blocks": 1,
    "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2, "qkv_bias": True,
    "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
FLUX2 = {
    **FLUX, "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "mlp_ratio": 3.0,
    "axes_dim": [32, 32, 32, 32], "theta": 2000, "patch_size": 1, "qkv_bias": False,
    "ops_bias": False, "global_modulation": True, "mlp_silu_act": True, "txt_ids_dims": [3],
}  # fmt: skip
CHROMA = {
    **{key: value for key, value in FLUX.items() if key != "guidance_embed"}, "vec_in_dim": None,
    "in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 128, "hidden_dim": 64,
    "n_layers": 1,
}  # fmt: skip
RADIANCE = {
    **CHROMA, "in_channels": 3, "out_channels": 3, "patch_size": 16, "nerf_hidden_size": 16,
    "nerf_mlp_ratio": 1, "nerf_depth": 1, "nerf_max_freqs": 2, "nerf_tile_size": 512,
    "nerf_final_head_type": "conv", "nerf_embedder_dtype": None, "use_x0": False,
    "use_sequential_txt_ids": False,
}  # fmt: skip
HUNYUAN = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": WIDTH,
    "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1, "depth": 1, "depth_single_blocks": 1,
    "axes_dim": [16, 56, 56], "theta": 256, "patch_size": [1, 2, 2], "qkv_bias": True,
    "guidance_embed": True, "byt5": False, "meanflow": False, "use_cond_type_embedding": False,
    "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
HUNYUAN15 = {
    **HUNYUAN, "in_channels": 65, "out_channels": 32, "vec_in_dim": None, "patch_size": [1, 1, 1],
    "guidance_embed": False, "byt5": True, "use_cond_type_embedding": True, "vision_in_dim": 1152,
    "meanflow_sum": True,
}  # fmt: skip
HUNYUAN_IMAGE = {
    **HUNYUAN, "in_channels": 64, "out_channels": 64, "vec_in_dim": None, "patch_size": [1, 1],
    "axes_dim": [64, 64], "guidance_embed": False, "byt5": True,
}  # fmt: skip
SD3 = {
    "in_channels": 16, "out_channels": 16, "depth": 2, "patch_size": 2, "input_size": None,
    "adm_in_channels": 16, "num_patches": 64, "pos_embed_max_size": 8, "qk_norm": "rms",
    "pos_embed_scaling_factor": None,
    "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 128},
    },
}  # fmt: skip
WAN = {"dim": 128, "ffn_dim": 64, "num_heads": 1, "num_layers": 1, "text_dim": WIDTH}
LUMINA = {
    "dim": 96, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 1, "n_kv_heads": 1,
    "axes_dims": [32, 32, 32], "axes_lens": [300, 512, 512], "in_channels": 16, "qk_norm": True,
    "cap_feat_dim": WIDTH,
}  # fmt: skip
Z_IMAGE = {
    **LUMINA, "dim": 256, "n_heads": 2, "n_kv_heads": 2, "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512], "rope_theta": 256.0, "z_image_modulation": True,
    "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip
COSMOS = {
    "max_img_h": 16, "max_img_w": 16, "max_frames": 8, "in_channels": 16, "out_channels": 16,
    "patch_spatial": 2, "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 128,
    "num_blocks": 1, "num_heads": 1, "crossattn_emb_channels": WIDTH, "pos_emb_cls": "rope3d",
    "use_adaln_lora": True, "adaln_lora_dim": 16,
}  # fmt: skip
COSMOS1 = {
    **COSMOS, "block_x_format": "THWBD", "affline_emb_norm": True,
    "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip
LTXV = {
    "num_layers": 1, "attention_head_dim": 4, "cross_attention_dim": 128, "caption_channels": WIDTH,
}  # fmt: skip
LTXAV = {
    **LTXV, "audio_cross_attention_dim": 64, "audio_attention_head_dim": 2,
    "connector_attention_head_dim": WIDTH, "connector_num_attention_heads": 1,
    "connector_num_layers": 1,
}  # fmt: skip
HIDREAM = {
    "attention_head_dim": 128, "num_attention_heads": 1, "num_layers": 1, "num_single_layers": 1,
    "caption_channels": [WIDTH, WIDTH], "llama_layers": [0, 1], "text_emb_dim": 16,
    "in_channels": 16, "out_channels": 16, "patch_size": 2, "axes_dims_rope": [64, 32, 32],
    "max_resolution": [16, 16], "num_routed_experts": 4, "num_activated_experts": 2,
}  # fmt: skip
OMNIGEN2 = {
    "hidden_size": 120, "num_attention_heads": 1, "num_kv_heads": 1, "num_layers": 1,
    "num_refiner_layers": 1, "axes_dim_rope": [40, 40, 40], "axes_lens": [1024, 1664, 1664],
    "text_feat_dim": WIDTH, "timestep_scale": 1000.0,
}  # fmt: skip
AURA = {
    "dim": 128, "n_heads": 1, "global_conddim": 128, "n_layers": 2, "n_double_layers": 1,
    "cond_seq_dim": 2048, "max_seq": 64,
}  # fmt: skip
ACE = {
    "inner_dim": 128, "attention_head_dim": 128, "num_attention_heads": 1, "num_layers": 1,
    "patch_size": [16, 1], "mlp_ratio": 1.0, "lyric_encoder_vocab_size": 64,
    "lyric_hidden_size": 1024, "text_embedding_dim": WIDTH,
}  # fmt: skip
STABLE_AUDIO = {
    "embed_dim": 768, "depth": 1, "num_heads": 12, "cond_token_dim": 768, "global_cond_dim": 1536,
}  # fmt: skip
SECONDS = {
    f"conditioner.conditioners.{name}.embedder.embedding.{key}": shape
    for name in ("seconds_start", "seconds_total")
    for key, shape in {"0.weights": (128,), "1.weight": (768, 257), "1.bias": (768,)}.items()
}
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64,
    "num_res_blocks": [1, 1], "channel_mult": [1, 1], "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 1, 1], "transformer_depth_middle": 1,
    "context_dim": WIDTH, "use_spatial_transformer": True, "legacy": False,
    "use_temporal_attention": False,
}  # fmt: skip
UNET_MARKS = {
    "model_channels": 320, "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "context_dim": 2048,
}  # fmt: skip
SD15 = {
    **UNET, "num_heads": 2, "num_head_channels": -1, "use_linear_in_transformer": False,
    "adm_in_channels": None,
}  # fmt: skip
SDXL = {
    **UNET, "num_head_channels": 32, "use_linear_in_transformer": True, "adm_in_channels": 2816,
    "num_classes": "sequential",
}  # fmt: skip
CASCADE = {
    "c_cond": 64, "c_hidden": [64, 64], "nhead": [1, 1], "blocks": [[1, 1], [1, 1]],
}  # fmt: skip
CASCADE_MARKS = {"c_cond": 1536, "c_hidden": [1536, 1536], "nhead": [24, 24]}
KANDINSKY = {
    "model_dim": 64, "ff_dim": 64, "time_dim": 32, "in_text_dim": WIDTH, "in_text_dim2": 16,
    "num_text_blocks": 1, "num_visual_blocks": 1, "visual_embed_dim": 132,
    "axes_dims": (16, 24, 24),
}  # fmt: skip
MOCHI = {
    "depth": 1, "num_heads": 1, "hidden_size_x": 48, "hidden_size_y": 48, "mlp_ratio_x": 256.0,
    "mlp_ratio_y": 1.0, "in_channels": 12, "t5_feat_dim": WIDTH, "t5_token_length": 8,
    "use_t5": True, "learn_sigma": False, "qkv_bias": False, "qk_norm": True,
    "timestep_scale": 1000.0,
}  # fmt: skip
KREA2 = {
    "features": 128, "tdim": 32, "txtdim": WIDTH, "heads": 1, "kvheads": 1, "layers": 1,
    "channels": 16, "txtlayers": 2, "txtheads": 1, "txtkvheads": 1,
}  # fmt: skip
LENS = {
    "num_layers": 1, "num_attention_heads": 1, "enc_hidden_dim": WIDTH,
    "multi_layer_encoder_feature": False, "selected_layer_index": (0,),
}  # fmt: skip
ERNIE = {
    "hidden_size": 128, "num_attention_heads": 1, "num_layers": 1, "ffn_hidden_size": 64,
    "text_in_dim": WIDTH,
}  # fmt: skip
HIDREAM_O1 = {
    "text_config_overrides": {
        "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1,
    },
    "vision_config_overrides": {
        "hidden_size": 32, "num_heads": 1, "intermediate_size": 32, "depth": 1,
        "num_position_embeddings": 16, "deepstack_visual_indexes": (),
    },
}  # fmt: skip
HYDIT = {
    "hidden_size": 64, "depth": 2, "num_heads": 1, "text_states_dim": WIDTH, "mlp_ratio": 1.0,
    "text_states_dim_t5": WIDTH, "text_len": 5, "text_len_t5": 5,
}  # fmt: skip
PIXART = {
    "hidden_size": 64, "depth": 1, "num_heads": 1, "caption_channels": WIDTH, "input_size": 64,
    "micro_condition": False,
}  # fmt: skip
COGVIDEO = {
    "num_attention_heads": 1, "time_embed_dim": 32, "num_layers": 1, "text_embed_dim": WIDTH,
    "use_rotary_positional_embeddings": True,
}  # fmt: skip
STABLE_AUDIO3 = {
    **STABLE_AUDIO, "io_channels": 256, "global_cond_dim": 768, "global_cond_shared_embed": True,
    "global_cond_type": "adaLN", "local_add_cond_dim": 257, "timestep_features_type": "expo",
}  # fmt: skip
SECONDS3 = {
    "conditioner.conditioners.seconds_total.embedder.embedding.1.weight": (768, 256),
    "conditioner.conditioners.seconds_total.embedder.embedding.1.bias": (768,),
}
ACE15 = {
    "hidden_size": 128, "text_hidden_dim": WIDTH, "num_dit_layers": 1, "num_lyric_layers": 1,
    "num_timbre_layers": 1, "num_tokenizer_layers": 1, "num_heads": 1, "num_kv_heads": 1,
    "intermediate_size": 64, "encoder_hidden_size": 128, "encoder_intermediate_size": 64,
    "encoder_num_heads": 1, "fsq_dim": 128,
}  # fmt: skip
MINIMAX = {
    "hidden_size": 128, "num_layers": 1, "token_refiner_num_layers": 1, "num_attention_heads": 1,
    "ffn_hidden_size": 64, "text_dim": WIDTH, "timestep_input_dim": 32, "time_embed_dim": 32,
    "time_embed_hidden_size": 32,
}  # fmt: skip

FAMILIES = [
    Family("Flux", "Flux", FLUX, PICTURE, options={**POOLED, "guidance": 3.5}),
    Family("Flux Schnell", "FluxSchnell", {**FLUX, "guidance_embed": False}, PICTURE,
           options=POOLED),
    Family("Flux Fill", "FluxInpaint", {**FLUX, "in_channels": 96}, PICTURE,
           options={**POOLED, "guidance": 30.0}),
    Family("Flux 2", "Flux2", FLUX2, ((128, 2, 2),), options={"guidance": 3.5}),
    Family("SD 3, 3.5", "SD3", SD3, PICTURE, options=POOLED),
    Family("Qwen-Image", "QwenImage",
           {"num_layers": 1, "num_attention_heads": 1, "joint_attention_dim": WIDTH}, DEEP_PICTURE),
    Family("Z-Image", "ZImage", Z_IMAGE, PICTURE,
           marks={"dim": 3840, "n_heads": 30, "n_kv_heads": 30}),
    Family("Wan 2.1, 2.2 14B", "WAN21_T2V", WAN, VIDEO, of="video"),
    Family("Wan 2.1 image to video", "WAN21_I2V", {**WAN, "model_type": "i2v", "in_dim": 36}, VIDEO,
           of="video"),
    Family("Wan 2.2 14B image to video", "WAN21_T2V", {**WAN, "in_dim": 36}, VIDEO, of="video"),
    Family("Wan 2.2 5B", "WAN22_T2V", {**WAN, "in_dim": 48, "out_dim": 48}, ((48, 3, 8, 8),),
           of="video"),
    Family("Chroma", "Chroma", CHROMA, PICTURE),
    Family("Chroma Radiance", "ChromaRadiance", RADIANCE, ((3, 32, 32),)),
    Family("AuraFlow", "AuraFlow", AURA, ((4, 8, 8),), width=2048),
    Family("Lumina 2", "Lumina2", LUMINA, PICTURE,
           marks={"dim": 2304, "n_heads": 24, "n_kv_heads": 8}),
    Family("HunyuanVideo", "HunyuanVideo", HUNYUAN, VIDEO,
           options={"pooled_output": (768,), "guidance": 6.0}, of="video"),
    Family("HunyuanVideo MeanFlow", "HunyuanVideo", {**HUNYUAN, "meanflow": True}, VIDEO,
           options={"pooled_output": (768,), "guidance": 6.0}, of="video"),
    Family("HunyuanVideo 1.5", "HunyuanVideo15", HUNYUAN15, ((32, 3, 4, 4),),
           options={"pooled_output": (768,)}, of="video"),
    Family("HunyuanImage 2.1", "HunyuanImage21", HUNYUAN_IMAGE, ((64, 4, 4),)),
    Family("LTX-Video", "LTXV", LTXV, ((128, 3, 4, 4),), options=MASK, of="video"),
    Family("LTX 2", "LTXAV", LTXAV, ((128, 3, 4, 4), (8, 6, 16)), of="video with sound"),
    Family("Cosmos 1", "CosmosT2V", COSMOS1, VIDEO, of="video"),
    Family("Cosmos Predict 2", "CosmosT2IPredict2", COSMOS, DEEP_PICTURE),
    Family("HiDream", "HiDream", HIDREAM, PICTURE,
           options={**POOLED, "conditioning_llama3": (2, 5, WIDTH)}),
    Family("OmniGen 2", "Omnigen2", OMNIGEN2, PICTURE, options=MASK),
    Family("ACE-Step", "ACEStep", ACE, ((8, 16, 12),),
           options={"conditioning_lyrics": [3, 1, 4, 1, 5, 9, 2]}, of="sound",
           cut={"lyric_encoder.encoders": 1}),
    Family("Stable Audio", "StableAudio", STABLE_AUDIO, ((64, 12),), width=768,
           state=SECONDS, of="sound"),
    Family("SD 1.5", "SD15", SD15, ((4, 8, 8),),
           marks={"model_channels": 320, "context_dim": 768}),
    Family("SDXL", "SDXL", SDXL, ((4, 8, 8),), options={"pooled_output": (1280,)},
           marks=UNET_MARKS),
    Family("Stable Cascade C", "Stable_Cascade_C", CASCADE, ((16, 8, 8),), width=1280,
           options={"pooled_output": (1, 1280)}, marks=CASCADE_MARKS),
    Family("Kandinsky 5", "Kandinsky5", KANDINSKY, VIDEO, options=POOLED, of="video"),
    Family("Kandinsky 5 Image", "Kandinsky5Image", {**KANDINSKY, "visual_embed_dim": 64}, PICTURE,
           options=POOLED, marks={"model_dim": 2560, "axes_dims": (32, 48, 48)}),
    Family("Mochi", "GenmoMochi", MOCHI, ((12, 3, 8, 8),), options=MASK, of="video"),
    Family("Anima", "Anima", {**COSMOS, "crossattn_emb_channels": 1024}, DEEP_PICTURE, width=1024,
           cut={"llm_adapter.blocks": 1}),
    Family("Krea 2", "Krea2", KREA2, DEEP_PICTURE, width=2 * WIDTH),
    Family("Lens", "Lens", LENS, ((128, 4, 4),)),
    Family("ERNIE-Image", "ErnieImage", ERNIE, ((128, 4, 4),)),
    Family("HiDream O1", "HiDreamO1", HIDREAM_O1, ((3, 64, 64),),
           options={"text_input_ids": [3, 1, 4, 1, 5]}),
    Family("HunyuanDiT", "HunyuanDiT", HYDIT, ((4, 8, 8),),
           options={**MASK, "conditioning_mt5xl": (5, WIDTH), "attention_mask_mt5xl": [1] * 5}),
    Family("PixArt Sigma", "PixArtSigma", PIXART, ((4, 40, 40),)),
    Family("Wan 2.1 VACE", "WAN21_Vace",
           {**WAN, "model_type": "vace", "vace_layers": 1, "vace_in_dim": 96}, VIDEO, of="video"),
    Family("CogVideoX", "CogVideoX_T2V", COGVIDEO, VIDEO, of="video"),
    Family("Stable Audio 3", "StableAudio3", STABLE_AUDIO3, ((256, 12),), width=768,
           state=SECONDS3, of="sound"),
    Family("ACE-Step 1.5", "ACEStep15", ACE15, ((64, 12),),
           options={"conditioning_lyrics": (5, WIDTH)}, of="sound", alone=False),
    Family("MiniMax H3", "MiniMaxH3", MINIMAX, ((24, 3, 4, 4), (32, 2, 6)), rows=1,
           of="video with sound"),
]  # fmt: skip

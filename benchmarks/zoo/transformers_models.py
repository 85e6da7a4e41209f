"""Networks of transformers, made small by their configuration."""

import importlib
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from networks import load_torchvision

from zoo.measure import Example, Maker

PACKAGE = "transformers"
TOKENS = 64


def load() -> None:
    """Import the package, which imports torchvision where that is installed."""
    with suppress(ImportError):
        load_torchvision()
    importlib.import_module("transformers")


def make(model: str, config: str, inputs: dict[str, Any], **options: Any) -> Example:
    """A network of a class and its configuration; keyword arguments of its forward."""
    transformers = importlib.import_module("transformers")
    network = getattr(transformers, model)(getattr(transformers, config)(**options))
    return network, {name: value() for name, value in inputs.items()}


def tokens(length: int = 9) -> torch.Tensor:
    """Two sequences of token ids."""
    return torch.randint(5, TOKENS, (2, length))


def images(side: int = 32) -> torch.Tensor:
    """Two images."""
    return torch.rand(2, 3, side, side)


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
BERT = SIZES | {"vocab_size": TOKENS}
VIT = SIZES | {"image_size": 32, "patch_size": 8}
LLAMA = BERT | {"num_key_value_heads": 2, "pad_token_id": 0, "use_cache": False}
IDS = {"input_ids": tokens}
PIXELS = {"pixel_values": images}

NETWORKS: dict[str, Maker] = {
    "transformers BERT": partial(make, "BertForSequenceClassification", "BertConfig", IDS, **BERT),
    "transformers RoBERTa": partial(make, "RobertaForMaskedLM", "RobertaConfig", IDS, **BERT),
    "transformers ALBERT": partial(make, "AlbertModel", "AlbertConfig", IDS, **BERT, embedding_size=16),
    "transformers ELECTRA": partial(make, "ElectraModel", "ElectraConfig", IDS, **BERT, embedding_size=16),
    "transformers DeBERTa-v2": partial(make, "DebertaV2Model", "DebertaV2Config", IDS, **BERT),
    "transformers DistilBERT": partial(
        make, "DistilBertForSequenceClassification", "DistilBertConfig", IDS, vocab_size=TOKENS, dim=32, n_layers=2,
        n_heads=4, hidden_dim=64,
    ),
    "transformers GPT-2": partial(
        make, "GPT2LMHeadModel", "GPT2Config", IDS, vocab_size=TOKENS, n_embd=32, n_layer=2, n_head=4, n_positions=32,
        use_cache=False,
    ),
    "transformers GPT-NeoX": partial(make, "GPTNeoXForCausalLM", "GPTNeoXConfig", IDS, **BERT, use_cache=False),
    "transformers OPT": partial(
        make, "OPTForCausalLM", "OPTConfig", IDS, vocab_size=TOKENS, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32, use_cache=False,
    ),
    "transformers Llama": partial(make, "LlamaForCausalLM", "LlamaConfig", IDS, **LLAMA),
    "transformers Mistral": partial(make, "MistralForCausalLM", "MistralConfig", IDS, **LLAMA),
    "transformers Qwen2": partial(make, "Qwen2ForCausalLM", "Qwen2Config", IDS, **LLAMA),
    "transformers Gemma": partial(make, "GemmaForCausalLM", "GemmaConfig", IDS, **LLAMA, head_dim=8),
    "transformers Mixtral": partial(
        make, "MixtralForCausalLM", "MixtralConfig", IDS, **LLAMA, num_local_experts=4, num_experts_per_tok=2
    ),
    "transformers T5": partial(
        make, "T5ForConditionalGeneration", "T5Config", IDS | {"decoder_input_ids": tokens}, vocab_size=TOKENS,
        d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, use_cache=False,
    ),
    "transformers BART": partial(
        make, "BartModel", "BartConfig", IDS, vocab_size=TOKENS, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, use_cache=False,
    ),
    "transformers Whisper": partial(
        make, "WhisperModel", "WhisperConfig",
        {"input_features": lambda: torch.rand(2, 20, 60), "decoder_input_ids": tokens}, vocab_size=TOKENS,
        num_mel_bins=20, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=30,
        max_target_positions=20, use_cache=False, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, begin_suppress_tokens=None,
    ),
    "transformers Wav2Vec2": partial(
        make, "Wav2Vec2Model", "Wav2Vec2Config", {"input_values": lambda: torch.rand(2, 400)}, hidden_size=32,
        num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=(16, 16), conv_stride=(5, 2),
        conv_kernel=(10, 3), num_feat_extract_layers=2, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
        mask_time_prob=0.0,
    ),
    "transformers ViT": partial(make, "ViTForImageClassification", "ViTConfig", PIXELS, **VIT),
    "transformers Swin": partial(
        make, "SwinForImageClassification", "SwinConfig", PIXELS, image_size=32, patch_size=4, embed_dim=16,
        depths=(1, 1), num_heads=(2, 2), window_size=4,
    ),
    "transformers ResNet": partial(
        make, "ResNetForImageClassification", "ResNetConfig", PIXELS, embedding_size=16, hidden_sizes=(16, 24),
        depths=(1, 1), layer_type="basic",
    ),
    "transformers SegFormer": partial(
        make, "SegformerForSemanticSegmentation", "SegformerConfig", PIXELS, depths=(1, 1, 1, 1),
        hidden_sizes=(8, 16, 24, 32), num_attention_heads=(1, 2, 2, 2), decoder_hidden_size=16,
    ),
    "transformers Mamba": partial(
        make, "MambaForCausalLM", "MambaConfig", IDS, vocab_size=TOKENS, hidden_size=32, num_hidden_layers=2,
        state_size=4, use_cache=False,
    ),
    "transformers MPNet": partial(make, "MPNetModel", "MPNetConfig", IDS, **BERT),
    "transformers Longformer": partial(
        make, "LongformerModel", "LongformerConfig", {"input_ids": partial(tokens, 16)}, **BERT, attention_window=4
    ),
    "transformers Falcon": partial(
        make, "FalconForCausalLM", "FalconConfig", IDS, vocab_size=TOKENS, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, use_cache=False,
    ),
    "transformers Phi-3": partial(make, "Phi3ForCausalLM", "Phi3Config", IDS, **LLAMA),
    "transformers GLM": partial(
        make, "GlmForCausalLM", "GlmConfig", IDS, **LLAMA, head_dim=8, eos_token_id=2,
    ),
    "transformers ModernBERT": partial(
        make, "ModernBertForMaskedLM", "ModernBertConfig", IDS, **BERT, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        cls_token_id=1, sep_token_id=2,
    ),
    "transformers Wav2Vec2-Conformer": partial(
        make, "Wav2Vec2ConformerModel", "Wav2Vec2ConformerConfig", {"input_values": lambda: torch.randn(2, 400)},
        **SIZES, conv_dim=(16, 16), conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    ),
    "transformers RWKV": partial(
        make, "RwkvModel", "RwkvConfig", IDS, vocab_size=TOKENS, hidden_size=32, num_hidden_layers=2,
        attention_hidden_size=32, use_cache=False,
    ),
    "transformers Perceiver": partial(
        make, "PerceiverModel", "PerceiverConfig", {"inputs": lambda: torch.rand(2, 10, 16)}, num_latents=4,
        d_latents=32, d_model=16, num_blocks=1, num_self_attends_per_block=2, num_self_attention_heads=2,
        num_cross_attention_heads=1,
    ),
    "transformers PatchTST": partial(
        make, "PatchTSTForPrediction", "PatchTSTConfig", {"past_values": lambda: torch.rand(2, 24, 3)},
        num_input_channels=3, context_length=24, patch_length=4, patch_stride=4, d_model=16, num_hidden_layers=2,
        num_attention_heads=2, ffn_dim=32, prediction_length=6,
    ),
    "transformers VideoMAE": partial(
        make, "VideoMAEModel", "VideoMAEConfig", {"pixel_values": lambda: torch.rand(2, 4, 3, 32, 32)}, **VIT,
        num_frames=4, tubelet_size=2,
    ),
    "transformers CLIP": partial(make, "CLIPVisionModel", "CLIPVisionConfig", PIXELS, **VIT),
}  # fmt: skip
